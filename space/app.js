// A click or an arrow key on a letter, or a click on a head, becomes one event with its numbers.
// Gradio runs this for both parts of the page and gives it `element`, `trigger` and `watch`.

let want = null, asked = 0;  // quick keys run ahead of the answers: one question at a time, the last counts
const shown = () => +(element.querySelector('.ch.at')?.dataset.at ?? 0);
const end = which => +(([...element.querySelectorAll('.ch')].at(which)?.dataset.at) ?? 0);
const ask = () => { asked = Date.now(); trigger('click', {at: want}); };
const go = at => {
  want = Math.min(Math.max(1, end(0), at), end(-1));
  if (want !== shown() && Date.now() - asked > 3000) ask();
};

element.addEventListener('click', e => {
  const letter = e.target.closest('.ch'), head = e.target.closest('.mini');
  if (letter) go(+letter.dataset.at);
  if (head) trigger('click', {layer: +head.dataset.layer, head: +head.dataset.head});
});
element.addEventListener('keydown', e => {
  const step = {ArrowLeft: -1, ArrowRight: 1}[e.key];
  if (step && shown()) { e.preventDefault(); go((want ?? shown()) + step); }
});
element.addEventListener('focusin', () => element.dataset.keys = '1');
element.addEventListener('focusout', e => { if (e.relatedTarget) delete element.dataset.keys; });
watch('value', () => {
  if (asked && want !== null && want !== shown()) ask(); else { want = null; asked = 0; }
  if (element.dataset.keys) element.querySelector('.letters')?.focus({preventScroll: true});
});
