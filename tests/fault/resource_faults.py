# SPDX-License-Identifier: Apache-2.0
"""What runs out: room on a disk, descriptors."""

import resource

from tests.fault import fault
from tests.fault import site as site_


class DiskFull(fault.Fault):
    """The file system of the ipc directory is full; a server starts.

    It has to fail with an error that says so, while the others go on.
    """

    name = 'ipc-disk-full'
    kinds = ('local',)
    hold = 1.0

    def inject(self):
        self._ballast = self.site.shared_dir / 'ballast'
        before = self.server('a')
        before.stop()
        if self.site.can_be_full:
            with self._ballast.open('wb', buffering=0) as file:
                size = site_.FULL_AT
                while size:
                    try:
                        file.write(bytes(size))
                    except OSError:
                        size //= 2
        before.launch()
        if not self.site.can_be_full:
            resource.prlimit(before.program.pid, resource.RLIMIT_FSIZE, (0, 0))
        self._expect_failure(before.program)

    def _expect_failure(self, program):
        try:
            program.wait_for('ready', 30)
        except AssertionError as error:
            text = str(error)
            if 'rpc_zmq_ipc_dir' not in text or not (
                'space' in text or 'too large' in text
            ):
                self.problems.append(f'the error is not clear: {text[-900:]}')
        else:
            self.problems.append('a server started although the disk is full')
            program.kill()

    def heal(self):
        self._ballast.unlink(missing_ok=True)
        self.server('a').launch().wait()


class ClientDescriptors(fault.Fault):
    """A client can open nothing more, and a server is replaced."""

    name = 'client-descriptors-exhausted'
    hold = 1.0
    blinds = 0.0

    def inject(self):
        self._client = self.site.clients['x']
        self._client.exhaust_descriptors()
        server = self.server('a')
        server.stop()
        server.launch().wait()

    def heal(self):
        self._client.grant_descriptors()


class ServerDescriptors(fault.Fault):
    """A server can accept nothing more, and its connections are cut."""

    name = 'server-descriptors-exhausted'
    kinds = ('tcp', 'sentinel')
    hold = 2.0

    def inject(self):
        server = self.server('a')
        server.program.exhaust_descriptors()
        server.proxy.cut_now()

    def heal(self):
        self.server('a').program.grant_descriptors()
