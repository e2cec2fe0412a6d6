"""Sphinx. Builds without network; DOCS_ONLINE=1 links the manuals of Celery and redis-py."""

import os

import celery_global_rate

project = "celery-global-rate"
author = copyright = "celery-global-rate contributors"
version = release = celery_global_rate.__version__

extensions = ["sphinx.ext.autodoc", "sphinx.ext.napoleon"]
if os.environ.get("DOCS_ONLINE"):
    extensions.append("sphinx.ext.intersphinx")
intersphinx_mapping = {
    "python": ("https://docs.python.org/3", None),
    "celery": ("https://docs.celeryq.dev/en/stable", None),
    "redis": ("https://redis.readthedocs.io/en/stable", None),
}

html_theme = "furo"
html_title = f"celery-global-rate {release}"
exclude_patterns = ["_build"]
