"""How the documentation is built: `sphinx-build -W docs docs/_build/html`. It needs no network."""

from cloudevents_bridge import __version__

project = "cloudevents-bridge"
copyright = "the cloudevents-bridge contributors"
release = version = __version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build", "examples"]
root_doc = "index"
nitpicky = False
default_role = "code"  # docstrings write `name` as Markdown does

myst_enable_extensions = ["deflist"]
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True  # attributes are listed once, in the text of their class

html_theme = "furo"
html_title = f"cloudevents-bridge {release}"
html_show_sphinx = False
html_copy_source = False
pygments_style = "friendly"
