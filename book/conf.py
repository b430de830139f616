"""Settings of the book: Sphinx, MyST-NB and the book theme, with nothing that loads from another host."""

project = "GPT-2 from scratch"
author = "its authors"
copyright = "its authors, MIT licence"
language = "en"

extensions = ["myst_nb"]
nb_execution_mode = "off"  # the outputs are those of a committed, complete run
nb_merge_streams = True
nb_code_prompt_show = "Show the code"
nb_code_prompt_hide = "Hide the code"
myst_enable_extensions = []  # no $maths$: a dollar is a letter of the text
myst_heading_anchors = 4
myst_number_code_blocks = []
suppress_warnings = ["myst.header"]  # a page may go from its title straight to a small heading
exclude_patterns = ["_build"]

html_theme = "sphinx_book_theme"
html_title = project
html_static_path = ["_static"]  # lab/book.py names a copy of it, with the glossary's terms beside
html_css_files = ["book.css"]
html_js_files = [("terms.js", {"defer": "defer"}), ("book.js", {"defer": "defer"})]
html_show_sphinx = False
html_copy_source = True
html_theme_options = {
    "home_page_in_toc": True,
    "navbar_persistent": [],  # one search field is enough: the one at the left
    "show_toc_level": 2,
    "use_fullscreen_button": False,
    "use_download_button": True,
    "pygments_light_style": "a11y-high-contrast-light",
    "pygments_dark_style": "a11y-high-contrast-dark",
}

epub_show_urls = "no"
