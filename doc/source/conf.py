# SPDX-License-Identifier: Apache-2.0
"""Sphinx configuration."""

import zmq_driver

project = 'oslo-messaging-zmq-driver'
copyright = 'the authors of oslo-messaging-zmq-driver'
version = release = zmq_driver.__version__

extensions = [
    'openstackdocstheme',
    'oslo_config.sphinxext',
    'sphinx.ext.autodoc',
]
html_theme = 'openstackdocs'
openstackdocs_auto_name = False
openstackdocs_auto_version = False
# The page footer would otherwise link to a bug tracker that is not ours.
html_theme_options = {'show_other_versions': False}

master_doc = 'index'
pygments_style = 'native'
add_module_names = False

autodoc_default_options = {
    'members': True,
    'member-order': 'bysource',
    'show-inheritance': True,
}
autodoc_typehints = 'description'
autodoc_typehints_description_target = 'documented'
autoclass_content = 'both'
