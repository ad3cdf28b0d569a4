# SPDX-License-Identifier: Apache-2.0
"""Sphinx configuration of the release notes."""

project = 'oslo-messaging-zmq-driver release notes'
copyright = 'the authors of oslo-messaging-zmq-driver'

extensions = [
    'openstackdocstheme',
    'reno.sphinxext',
]
html_theme = 'openstackdocs'
openstackdocs_auto_name = False
openstackdocs_auto_version = False
html_theme_options = {'show_other_versions': False}

# One page shows the history of all versions.
version = release = ''
master_doc = 'index'
