//! The console's own icons: one sprite of symbols on a 24-unit grid, drawn with the colour of the text.

const SHAPES = {
  inbox: 'M4 5h16M4 12h16M4 19h10',
  history: 'M12 7v5l3.5 2M4.5 9A8 8 0 1 1 4 12.5M4 5v4h4',
  folder: 'M3.5 18V6.5a1 1 0 0 1 1-1h4.6l2.3 2.5h8.1a1 1 0 0 1 1 1v9a1 1 0 0 1-1 1h-15a1 1 0 0 1-1-1Z',
  settings: 'M4 7h9m5 0h2M4 17h2m5 0h9M15.5 4.5v5M8.5 14.5v5',
  left: 'm14.5 5-7 7 7 7',
  right: 'm9.5 5 7 7-7 7',
  down: 'm5 9.5 7 7 7-7',
  end: 'M12 5v14m-6-6 6 6 6-6',
  up: 'M12 19V5m-6 6 6-6 6 6',
  plus: 'M12 5v14M5 12h14',
  close: 'm6 6 12 12M18 6 6 18',
  search: 'M10.5 17a6.5 6.5 0 1 0 0-13 6.5 6.5 0 0 0 0 13Zm5-1.500 4.500 4.500',
  check: 'm5 12.500 4.500 4.500L19 7.500',
  more: 'M5 12h.01M12 12h.01M19 12h.01',
  command: 'm5 7 5 5-5 5m7.500 0H19',
  edit: 'm5 19 .8-4L15.700 5.100a1.500 1.500 0 0 1 2.100 0l1.100 1.100a1.500 1.500 0 0 1 0 2.100L9 18.200 5 19Z',
  read: 'M7 3.500h6.500L18 8v11.500a1 1 0 0 1-1 1H7a1 1 0 0 1-1-1v-15a1 1 0 0 1 1-1ZM13 4v4.500h4.500',
  fetch: 'M12 20.500a8.500 8.500 0 1 0 0-17 8.500 8.500 0 0 0 0 17ZM3.500 12h17M12 3.500c5 5 5 12 0 17-5-5-5-12 0-17Z',
  task: 'M7 4v9a4 4 0 0 0 4 4h7m-3.500-3.500L18 17l-3.500 3.500M7 8h7',
  plan: 'm4 7 1.500 1.500L8.500 5M4 16l1.500 1.500 3-3.500M12 7h8M12 16h8',
  question: 'M9 9a3 3 0 1 1 4.500 2.600c-1 .6-1.500 1.200-1.500 2.400m0 3.500h.01M12 21a9 9 0 1 0 0-18 9 9 0 0 0 0 18Z',
  mcp: 'M9 3v5m6-5v5M6.500 8h11v3.500a5.500 5.500 0 0 1-11 0V8Zm5.500 9v4',
  other: 'M14.500 6.500a4 4 0 0 0-5.300 5L4 16.700 7.300 20l5.200-5.200a4 4 0 0 0 5-5.300l-2.600 2.600-2.900-.9-.6-2.600 3.100-2.100Z',
  thinking: 'M12 4v3m0 10v3m8-8h-3M7 12H4m13.700-5.700-2.200 2.200m-7 7-2.200 2.200m11.400 0-2.200-2.200m-7-7L6.300 6.300',
  warn: 'M12 9v4.500m0 3h.01M10.700 4.300 3 18a1.500 1.500 0 0 0 1.300 2.200h15.400A1.500 1.500 0 0 0 21 18L13.300 4.300a1.500 1.500 0 0 0-2.600 0Z',
  trash: 'M5 7h14M10 7V4.500h4V7m-7.500 0 .8 12a1 1 0 0 0 1 1h7.400a1 1 0 0 0 1-1l.8-12M10.500 11v5m3-5v5',
  fork: 'M7 8.500v7m0-7a2.300 2.300 0 1 0 0-4.500 2.300 2.300 0 0 0 0 4.500Zm0 7a2.300 2.300 0 1 0 0 4.500 2.300 2.300 0 0 0 0-4.500Zm10-7a2.300 2.300 0 1 0 0-4.500 2.300 2.300 0 0 0 0 4.500Zm0 0c0 4-10 2-10 6.500',
  scan: 'M4 8V5a1 1 0 0 1 1-1h3m8 0h3a1 1 0 0 1 1 1v3m0 8v3a1 1 0 0 1-1 1h-3m-8 0H5a1 1 0 0 1-1-1v-3m4-4h8',
  machine: 'M5.500 15.500V6.500a1 1 0 0 1 1-1h11a1 1 0 0 1 1 1v9M3 18.500h18',
  offline: 'm4 4 16 16M8.500 15.500a5 5 0 0 1 6.500-.4M5 12a10 10 0 0 1 4-2.400m6 .4a10 10 0 0 1 4 2M12 19h.01',
  key: 'M14 13.500a4.500 4.500 0 1 0-3.500-3.500L4 16.500V20h3.500v-2.500H10V15l1-1m4.500-5.500h.01',
  play: 'M8 5.500v13l10.500-6.500L8 5.500Z',
  shield: 'M12 3.500 5 6v5.500c0 4.500 3 7.500 7 9 4-1.500 7-4.500 7-9V6l-7-2.500Z',
  model: 'M12 3.500 19.500 8v8L12 20.500 4.500 16V8L12 3.500ZM4.500 8l7.500 4.500L19.500 8M12 12.500v8',
  clock: 'M12 7.500V12l3 2m-3 6.500a8.500 8.500 0 1 0 0-17 8.500 8.500 0 0 0 0 17Z',
  raw: 'M9 4.500H8a2 2 0 0 0-2 2V10a2 2 0 0 1-2 2 2 2 0 0 1 2 2v3.500a2 2 0 0 0 2 2h1m6-15h1a2 2 0 0 1 2 2V10a2 2 0 0 0 2 2 2 2 0 0 0-2 2v3.500a2 2 0 0 1-2 2h-1',
  claude: 'M12 3.500v17M4.600 7.800l14.800 8.400M4.600 16.200l14.800-8.400',
  codex: 'M12 3.200 19.600 7.600v8.800L12 20.800l-7.600-4.400V7.600L12 3.200Zm-3 6.300 2.500 2.500L9 14.500m4 0h2.500',
  gemini: 'M12 3c.6 5.200 3.800 8.400 9 9-5.200.6-8.400 3.800-9 9-.6-5.200-3.800-8.400-9-9 5.200-.6 8.400-3.800 9-9Z',
  agent: 'M7 9.500h10a1.500 1.500 0 0 1 1.500 1.500v6a1.500 1.500 0 0 1-1.500 1.500H7A1.500 1.500 0 0 1 5.500 17v-6A1.500 1.500 0 0 1 7 9.500Zm5 0V5.500m-2.500 8h.01m4.990 0h.01',
} as const;

const FILLED = { stop: 'M7.500 6h9A1.500 1.500 0 0 1 18 7.500v9a1.500 1.500 0 0 1-1.500 1.500h-9A1.500 1.500 0 0 1 6 16.500v-9A1.500 1.500 0 0 1 7.500 6Z' } as const;

export type IconName = keyof typeof SHAPES | keyof typeof FILLED;

/** The sprite; once in the page. */
export function Sprite() {
  return (
    <svg class="sprite" aria-hidden="true">
      {Object.entries(SHAPES).map(([name, path]) => (
        <symbol key={name} id={`i-${name}`} viewBox="0 0 24 24">
          <path d={path} fill="none" stroke="currentColor" stroke-width={name === 'more' ? 2.6 : 1.7} stroke-linecap="round" stroke-linejoin="round" />
        </symbol>
      ))}
      {Object.entries(FILLED).map(([name, path]) => (
        <symbol key={name} id={`i-${name}`} viewBox="0 0 24 24">
          <path d={path} fill="currentColor" />
        </symbol>
      ))}
    </svg>
  );
}

/** One icon. Silent for screen readers: what it means stands beside it or in a label. */
export function Icon({ name, size = 20, class: more = '' }: { name: IconName; size?: number; class?: string }) {
  return (
    <svg class={`icon ${more}`} width={size} height={size} aria-hidden="true">
      <use href={`#i-${name}`} />
    </svg>
  );
}

/** The mark of an agent. */
export function AgentMark({ executor, size = 18 }: { executor: string; size?: number }) {
  const known = executor === 'claude' || executor === 'codex' || executor === 'gemini';
  return (
    <span class={`mark ${known ? executor : ''}`}>
      <Icon name={known ? executor : 'agent'} size={size} />
    </span>
  );
}
