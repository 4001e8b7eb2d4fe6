import { defineConfig } from 'vitest/config';

export default defineConfig({
  oxc: { jsx: { runtime: 'automatic', importSource: 'preact' } },
  test: {
    // A browser and daemons for each file: two at a time keep two cores busy.
    maxWorkers: 2,
    projects: [
      { extends: true, test: { name: 'unit', include: ['test/unit/**/*.test.ts'], environment: 'happy-dom', testTimeout: 60_000 } },
      { extends: true, test: { name: 'bench', include: ['bench/**/*.test.ts'], environment: 'node', testTimeout: 600_000 } },
      {
        extends: true,
        test: { name: 'e2e', include: ['test/e2e/**/*.test.ts'], environment: 'node', testTimeout: 120_000, hookTimeout: 120_000,
          // A loaded machine needs longer for each step than the second that is the default.
          expect: { poll: { timeout: 30_000 } } },
      },
    ],
  },
});
