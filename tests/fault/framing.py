# SPDX-License-Identifier: Apache-2.0
"""Where the frames of a ZMTP 3 stream begin and end (RFC 23)."""

import dataclasses

#: Bytes before the first frame.
GREETING = 64

MORE = 0x01
LONG = 0x02
COMMAND = 0x04


@dataclasses.dataclass(frozen=True)
class Frame:
    """One frame, by its offsets in the bytes that were fed last."""

    start: int
    #: One past its last byte; beyond the bytes, if it goes on.
    end: int
    flags: int

    @property
    def is_message(self):
        return not self.flags & COMMAND

    @property
    def has_more(self):
        return bool(self.flags & MORE)


class Framing:
    """Follows one direction of one connection.

    Thread: owner only.
    """

    def __init__(self):
        #: Bytes until the next frame begins.
        self._left = GREETING
        #: The beginning of a frame whose size is not known yet.
        self._head = b''

    def feed(self, data):
        """Return the frames that begin in *data*."""
        frames = []
        offset = min(self._left, len(data))
        self._left -= offset
        while offset < len(data):
            known = len(self._head)
            head = self._head + data[offset : offset + 9 - known]
            size = _size(head)
            if size is None:
                self._head = head
                break
            self._head = b''
            start = offset - known
            end = start + size
            frames.append(Frame(start, end, head[0]))
            self._left = max(0, end - len(data))
            offset = min(end, len(data))
        return frames


def _size(head):
    """Return the bytes of a frame with its head; None: not known yet."""
    if head[0] & LONG:
        if len(head) < 9:
            return None
        return 9 + int.from_bytes(head[1:9], 'big')
    if len(head) < 2:
        return None
    return 2 + head[1]
