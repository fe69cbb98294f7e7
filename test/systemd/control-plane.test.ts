import { afterAll, expect, test } from 'vitest';
import { freePort } from '../support/free-port.ts';
import { http } from '../support/http.ts';
import { SystemdHost } from '../support/systemd-host.ts';
import { until } from '../support/wait.ts';
import { REPOSITORY } from '../support/workspace.ts';

const HOME = '/opt/harrier/control-plane';
const UNIT = 'harrier-control-plane.service';
const port = await freePort();
const url = `http://127.0.0.1:${port}`;
const host = await SystemdHost.boot({ binds: { [HOME]: REPOSITORY } });
afterAll(() => host.stop());

const mainPid = async (): Promise<string> => await host.property(UNIT, 'MainPID');

test('the unit starts a control plane with its own database, as a user of its own', async () => {
  await host.shell(`
    useradd --system --user-group --no-create-home --home-dir /var/lib/harrier-control-plane --shell /usr/sbin/nologin harrier
    mkdir -p /etc/harrier
    install -m 0600 /dev/stdin /etc/harrier/control-plane.env <<END
HARRIER_LISTEN=127.0.0.1:${port}
HARRIER_METRICS_LISTEN=127.0.0.1:0
END
    install -m 0644 ${HOME}/systemd/${UNIT} /etc/systemd/system/
    systemctl daemon-reload && systemctl enable --quiet --now ${UNIT}`);
  expect(await host.property(UNIT, 'StatusText')).toBe(`Serving on 127.0.0.1:${port}`);
  expect((await http(`${url}/readyz`)).status).toBe(200);
  expect(await host.shell(`stat -c %U /proc/${await mainPid()}`)).toBe('harrier');
  expect(await host.shell('stat -c %a:%U /var/lib/harrier-control-plane/admin.key')).toBe('600:harrier');
});

test('a control plane that hangs is restarted by the watchdog, and its database with it', async () => {
  const dropIn = `/etc/systemd/system/${UNIT}.d`;
  await host.shell(`mkdir ${dropIn} && printf '[Service]\\nWatchdogSec=3s\\n' > ${dropIn}/watchdog.conf`);
  await host.shell(`systemctl daemon-reload && systemctl restart ${UNIT}`);
  const former = await mainPid();
  await host.shell(`kill -STOP ${former}`);
  await until('another control plane', async () => !['0', former].includes(await mainPid()));
  await until('the unit to be up', async () => (await host.property(UNIT, 'ActiveState')) === 'active');
  expect((await http(`${url}/readyz`)).status).toBe(200);
});

test('it stops in order, and leaves no process', async () => {
  const own = async () => (await host.processes()).filter((process) => process.startsWith('harrier '));
  expect(await own()).not.toEqual([]);
  await host.shell(`systemctl stop ${UNIT}`);
  expect(await host.property(UNIT, 'Result')).toBe('success');
  expect(await own()).toEqual([]);
});
