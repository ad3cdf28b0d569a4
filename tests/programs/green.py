# SPDX-License-Identifier: Apache-2.0
"""A process that records who imports eventlet or gevent.

``native`` imports every module of the package, and serves and calls.
``eventlet`` and ``gevent`` monkey-patch first, the latter by a module that
only says so, and load the driver. Prints one JSON line.
"""

import builtins
import importlib
import json
import pkgutil
import sys
import types

GREEN = ('eventlet', 'gevent')

culprits = []
_import = builtins.__import__


def recording_import(name, names=None, *args, **kwargs):
    importer = (names or {}).get('__name__') or ''
    if name.partition('.')[0] in GREEN and importer.startswith('zmq_driver'):
        culprits.append(f'{importer} imports {name}')
    return _import(name, names, *args, **kwargs)


class Endpoint:
    def echo(self, ctxt, value):
        return value


def native(url, topic):
    builtins.__import__ = recording_import
    import zmq_driver

    modules = [
        module.name
        for module in pkgutil.walk_packages(zmq_driver.__path__, 'zmq_driver.')
    ]
    for name in modules:
        importlib.import_module(name)
    from oslo_config import cfg
    import oslo_messaging

    cfg.CONF([], project='zmq-driver-tests')
    transport = oslo_messaging.get_rpc_transport(cfg.CONF, url)
    server = oslo_messaging.get_rpc_server(
        transport,
        oslo_messaging.Target(topic=topic, server='s'),
        [Endpoint()],
        executor='threading',
        access_policy=oslo_messaging.DefaultRPCAccessPolicy,
    )
    server.start()
    client = oslo_messaging.get_rpc_client(
        transport, oslo_messaging.Target(topic=topic), timeout=20
    )
    answer = client.call({}, 'echo', value=1)
    server.stop()
    server.wait()
    transport.cleanup()
    return {'culprits': culprits, 'modules': modules, 'answer': answer}


def patched(url):
    from oslo_config import cfg
    import oslo_messaging

    cfg.CONF([], project='zmq-driver-tests')
    try:
        oslo_messaging.get_rpc_transport(cfg.CONF, url)
    except Exception as error:
        kinds = [kind.__name__ for kind in type(error).__mro__]
        return {'kinds': kinds, 'text': str(error)}
    return {'kinds': [], 'text': 'loaded'}


def main():
    how, url, topic = sys.argv[1:]
    if how == 'native':
        result = native(url, topic)
    elif how == 'eventlet':
        import eventlet

        eventlet.monkey_patch()
        result = patched(url)
    elif how == 'eventlet-without-threads':
        import eventlet

        eventlet.monkey_patch(thread=False)
        result = patched(url)
    else:
        module = types.ModuleType('gevent.monkey')
        module.is_module_patched = lambda name: name == 'threading'
        sys.modules['gevent.monkey'] = module
        result = patched(url)
    print(json.dumps(result))


if __name__ == '__main__':
    main()
