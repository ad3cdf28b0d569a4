# SPDX-License-Identifier: Apache-2.0
"""The WSGI example, whose transports were used when it was imported.

Under a server that preloads it, that is in the parent, before the fork.
"""

from examples import wsgi_app

assert wsgi_app.client.call({}, 'add', a=1, b=1)['sum'] == 2
wsgi_app.notifier.info({}, 'calculator.started', {})

application = wsgi_app.application
