// signed_in.js: the window in which the visitor signed in. It hands the Hub's answer to the page that asked.

const said = document.getElementById("said");
const channel = new BroadcastChannel("gpt2-sign-in");
const answer = location.search;
history.replaceState(null, "", location.pathname); // the code is good once; no address keeps it

channel.onmessage = ({ data }) => {
  if (data.heard !== new URLSearchParams(answer).get("state")) return;
  said.textContent = "Done: close this window and go on in the page.";
  window.close();
};
channel.postMessage(answer);
setTimeout(() => {
  if (said.textContent.startsWith("Back"))
    said.textContent = "No page waits for this sign-in: close this window, and sign in from the page again.";
}, 3000);
