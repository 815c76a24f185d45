"""Settings of the documentation site: `make docs` builds it, offline.

Pages are MyST Markdown that reads well on a code host too; notebooks are shown
with the outputs that they were committed with; the API reference comes from the
docstrings.
"""

import os
import re
import sys
from pathlib import Path

DOCS = Path(__file__).parent
ROOT = DOCS.parent
sys.path[:0] = [str(ROOT), str(DOCS)]
os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import markup  # noqa: E402

import tf_lamb  # noqa: E402

project = "tf-lamb"
copyright = "the tf-lamb maintainers, Apache-2.0"
release = version = tf_lamb.__version__
extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.mathjax",
    "sphinx-mathjax-offline",
    "sphinx_copybutton",
]

# The look.
html_theme = "furo"
html_title = "tf-lamb"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sphinx = False
pygments_style = "friendly"
pygments_dark_style = "monokai"
copybutton_prompt_text = "$ "

# Pages.
myst_enable_extensions = ["dollarmath", "colon_fence", "deflist"]
myst_heading_anchors = 3
nb_execution_mode = "off"
nb_merge_streams = True

# Docstrings: Google form, single backticks mean code.
default_role = "code"
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
python_display_short_literal_types = True
python_maximum_signature_line_length = 72
napoleon_numpy_docstring = False
napoleon_use_rtype = False
toc_object_entries_show_parents = "hide"

# Types of other packages have no page here.
nitpick_ignore_regex = [
    # Described as a module only.
    ("py:.*", r"tf_lamb\.tf_update\..*"),
    ("py:.*", r"(keras|tensorflow|tf|tf_keras|numpy|np|os|pathlib|typing)\b.*"),
    ("py:.*", r"collections\.abc\..*"),
    ("py:.*", r"[a-z]+|[A-Z][a-z]+Error|(Any|Callable|Path|PathLike|Array)"),
]

# Files of the repository that are pages of the site, by `include`.
INCLUDED = {
    "CHANGELOG.md": "project/changelog",
    "CONTRIBUTING.md": "project/contributing",
    "benchmarks/README.md": "benchmarks",
    "benchmarks/batch_scaling.md": "reports/batch_scaling",
    "benchmarks/scaling.md": "reports/scaling",
    "benchmarks/tpu_words.md": "reports/tpu_words",
    "official_models/nlp/bert/README.md": "reports/bert",
    "official_models/nlp/bert/HUB.md": "reports/hub",
    "official_models/nlp/albert/README.md": "reports/albert",
    "official_models/vision/resnet/README.md": "reports/resnet",
    "official_models/nlp/head_analysis/README.md": "reports/head_analysis",
    "official_models/nlp/summarization/README.md": "reports/summarization",
    "official_models/nlp/term_weighting/README.md": "reports/term_weighting",
    "official_models/rl/dqn_lambda/README.md": "reports/dqn_lambda",
    "official_models/vision/few_shot/README.md": "reports/few_shot",
    "official_models/vision/batch_norm/README.md": "reports/batch_norm",
    "tpu/README.md": "reports/tpu",
    "tpu/plan/README.md": "reports/tpu_plan",
}


def _on_source(app, docname, source):
    page = Path(app.env.doc2path(docname))
    if page.suffix in (".md", ".ipynb"):
        source[0] = markup.site_links(source[0], page, page, INCLUDED)


def _on_include(app, relative_path, parent_docname, content):
    source = (DOCS / relative_path).resolve()
    page = DOCS / f"{app.env.docname}.md"  # of the other, MyST gives the stem
    content[0] = markup.site_links(content[0], source, page, INCLUDED)


def _on_docstring(app, what, name, obj, options, lines):
    lines[:] = markup.restructured("\n".join(lines)).split("\n")
    if what == "property":
        # Else napoleon takes "{path" of "{path: value}" for the type.
        lines[0] = re.sub(r"^\{[^}]*\}", r"``\g<0>``", lines[0])


def setup(app):
    app.connect("source-read", _on_source)
    app.connect("include-read", _on_include)
    # Before napoleon, whose priority is 500.
    app.connect("autodoc-process-docstring", _on_docstring, priority=400)
