"""Solutions of the exercises of gpt2_gradio.ipynb. Try them first; then compare."""


# exercise 0
def file_mb(parameters, bits):
    return parameters * bits / 8 / 1e6


def checkpoint_mb(parameters):
    return 3 * file_mb(parameters, 32)


# exercise 1
def cache_mb(n_layer, n_embd, T, bytes=4):
    return 2 * n_layer * T * n_embd * bytes / 1e6


# exercise 2
def what_it_sees(typed, tokenizer, block_size):
    ids = tokenizer.encode(typed)[-block_size:]
    return tokenizer.decode(ids) or "\n"


# exercise 3
def harmless(text):
    for sign, name in (("&", "amp"), ("<", "lt"), (">", "gt"), ('"', "quot"), ("'", "#x27")):
        text = text.replace(sign, f"&{name};")
    return text
