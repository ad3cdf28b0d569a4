# SPDX-License-Identifier: Apache-2.0
"""The only module that touches oslo.messaging's private driver API.

oslo.messaging says of it: "Under no circumstances should this API be
referenced by code external to the oslo.messaging library". A driver that
lives outside has no other way, so the dependency stands here alone, and the
conformance tests run it against every supported release.
"""

import inspect

from oslo_messaging._drivers import base
from oslo_messaging._drivers import common

BaseDriver = base.BaseDriver
IncomingMessage = base.IncomingMessage
Listener = base.Listener
PollStyleListener = base.PollStyleListener
PollStyleListenerAdapter = base.PollStyleListenerAdapter
RpcIncomingMessage = base.RpcIncomingMessage

deserialize_remote_exception = common.deserialize_remote_exception
serialize_remote_exception = common.serialize_remote_exception

#: What a message is made with besides its context and content, so that it
#: makes no id of its own: a random UUID costs a fifth of what the driver does
#: for a call at the server. Before 14.9 there was no such argument.
NO_MSG_ID = (
    ('',)
    if 'msg_id' in inspect.signature(IncomingMessage.__init__).parameters
    else ()
)
