//! `npm run dev`: the console with hot reload, talking to a pretended machine. Open /?token=demo.

import type { Plugin } from 'vite';
import { liveMachine } from './mock/data.ts';
import { MockServer } from './mock/server.ts';

export function liveMock(): Plugin {
  return {
    name: 'arp-mock',
    apply: 'serve',
    async config(_, { isPreview }) {
      if (isPreview) return {};
      const server = new MockServer();
      server.edges.set('demo', liveMachine());
      const target = await server.listen(Number(process.env['MOCK_PORT'] ?? 0));
      const headers = { 'X-ARP-Token': 'demo' };
      return { server: { proxy: { '/api': { target, ws: true, headers } } } };
    },
  };
}
