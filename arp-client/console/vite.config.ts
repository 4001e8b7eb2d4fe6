import { defineConfig } from 'vite';
import { packBundle } from './dev/bundle.ts';
import { liveMock } from './dev/live.ts';

// `base: './'` keeps every URL of the bundle relative: the console works under any path prefix.
export default defineConfig({
  base: './',
  build: {
    target: 'es2022',
    outDir: 'dist',
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    reportCompressedSize: false,
  },
  plugins: [packBundle(), liveMock()],
});
