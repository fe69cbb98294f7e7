import { createRegistry } from '@harrier/shared/metrics/exposition';
import { Registry } from 'prom-client';
import { describe, expect, onTestFinished, test } from 'vitest';
import { serveMetrics } from './metrics-server.ts';

async function serve(problems: string[]): Promise<string> {
  const health = () => ({ problems, details: { active: 2 } });
  const server = await serveMetrics({ host: '127.0.0.1', port: 0 }, createRegistry(), health);
  onTestFinished(() => server.close());
  return `http://127.0.0.1:${server.address.port}`;
}

describe('the agent serves', () => {
  test('/healthz: 200 while it can work', async () => {
    const response = await fetch(`${await serve([])}/healthz`);
    expect(response.status).toBe(200);
    expect(await response.json()).toEqual({ status: 'ok', problems: [], active: 2 });
  });

  test('/healthz: 503 with the reasons while it cannot', async () => {
    const response = await fetch(`${await serve(['no link to the control plane'])}/healthz`);
    expect(response.status).toBe(503);
    expect(await response.json()).toMatchObject({ status: 'unavailable', problems: ['no link to the control plane'] });
  });

  test('/metrics in the form of Prometheus, and nothing else', async () => {
    const url = await serve([]);
    const response = await fetch(`${url}/metrics?name=x`);
    expect([response.status, response.headers.get('content-type')]).toEqual([200, Registry.PROMETHEUS_CONTENT_TYPE]);
    expect((await fetch(`${url}/other`)).status).toBe(404);
    expect((await fetch(`${url}/metrics`, { method: 'POST' })).status).toBe(405);
  });

  test('/metrics to those who have its token, and /healthz to all', async () => {
    const health = () => ({ problems: [], details: {} });
    const server = await serveMetrics({ host: '127.0.0.1', port: 0 }, createRegistry(), health, 'sesame');
    onTestFinished(() => server.close());
    const status = async (path: string, authorization?: string) => {
      const headers: Record<string, string> = authorization === undefined ? {} : { authorization };
      return (await fetch(`http://127.0.0.1:${server.address.port}${path}`, { headers })).status;
    };
    expect(await status('/metrics', 'Bearer sesame')).toBe(200);
    expect([await status('/metrics'), await status('/metrics', 'Bearer other')]).toEqual([401, 401]);
    expect(await status('/healthz')).toBe(200);
  });

  test('or says whose address is taken', async () => {
    const port = Number(new URL(await serve([])).port);
    const second = serveMetrics({ host: '127.0.0.1', port }, createRegistry(), () => ({ problems: [], details: {} }));
    await expect(second).rejects.toThrow(`HARRIER_AGENT_METRICS_LISTEN: 127.0.0.1:${port} cannot be had`);
  });
});
