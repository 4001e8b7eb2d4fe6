import { beforeEach, describe, expect, test, vi } from 'vitest';
import { arrange, groupOf, isUnread, matches } from '../../src/model/inbox';
import { Link, type Frame } from '../../src/net/link';
import { fingerprint, loadMachines, machineOf, parseAddress, saveMachines, tokenOf, withToken } from '../../src/net/machine';
import { SseParser } from '../../src/net/sse';
import type { Session } from '../../src/net/types';
import { hrefOf, parseRoute, type Route } from '../../src/state/route';
import { en } from '../../src/i18n/en';
import { zh } from '../../src/i18n/zh';

describe('sse', () => {
  const stream = 'event: status\r\ndata: {"a":1}\r\n\r\n: ping\n\nid: 7\ndata: one\ndata:two\n\ndata: x\rid: 8\r\r';
  test('any_cut_of_the_stream_gives_the_same_events', () => {
    const whole = new SseParser().push(`${stream}\n`);
    expect(whole.map(({ event, data, id }) => [event, data, id])).toEqual([['status', '{"a":1}', null], ['', 'one\ntwo', '7'], ['', 'x', '8']]);
    for (let cut = 1; cut < stream.length; cut++) {
      const parser = new SseParser();
      expect([...parser.push(stream.slice(0, cut)), ...parser.push(stream.slice(cut)), ...parser.push('\n')]).toEqual(whole);
    }
  });
  test('an_endless_line_is_refused', () => {
    const parser = new SseParser();
    const piece = 'x'.repeat(4 * 1024 * 1024);
    expect(() => {
      for (let n = 0; n < 5; n++) parser.push(piece);
    }).toThrow();
  });
});

describe('machines', () => {
  test('each_form_of_an_address_is_understood', () => {
    expect(parseAddress('http://s:17003/?token=demo')).toMatchObject({ base: 'http://s:17003/', token: 'demo' });
    expect(parseAddress('http://s:17003?token=demo')).toMatchObject({ base: 'http://s:17003/', token: 'demo' });
    expect(parseAddress('https://s/arp/t/demo/')).toMatchObject({ base: 'https://s/arp/t/demo/', token: null });
    expect(parseAddress('https://s/t/demo')).toMatchObject({ base: 'https://s/t/demo/', token: null });
    expect(parseAddress('https://demo.example.org/')).toMatchObject({ base: 'https://demo.example.org/', token: null });
  });
  test.each(['', 'demo', 'javascript:alert(1)', 'http://s/?token=', 'ftp://s/?token=x'])('%j is no address', (text) => expect(parseAddress(text)).toBeNull());
  test('the_id_of_a_machine_does_not_hold_its_token', () => {
    expect(machineOf('http://s/', 'secret').id).not.toContain('secret');
    expect(fingerprint('a')).not.toBe(fingerprint('b'));
  });
  test('the_token_leaves_the_address_and_comes_back', () => {
    expect(tokenOf('?a=1&token=demo/x')).toBe('demo');
    expect(withToken('http://s/?a=1&token=demo#/s/1', null)).toBe('http://s/?a=1#/s/1');
    expect(withToken('http://s/?token=old#/s/1', 'demo')).toBe('http://s/?arp_token=demo#/s/1');
    expect(tokenOf('?token=a&arp_token=b')).toBe('b');
  });
  test('a_broken_list_is_an_empty_one', () => {
    localStorage.setItem('arp.machines', '{');
    expect(loadMachines()).toEqual([]);
    localStorage.setItem('arp.machines', '[{"base":"javascript:x"},{"base":"http://s/","token":"t","name":"n"},3]');
    expect(loadMachines()).toMatchObject([{ base: 'http://s/', token: 't', name: 'n' }]);
    saveMachines(loadMachines());
    expect(loadMachines()).toHaveLength(1);
  });
});

describe('routes', () => {
  const routes: Route[] = [
    { name: 'inbox' }, { name: 'new' }, { name: 'settings' }, { name: 'session', machine: 'm', id: '~a b/1.2' },
    { name: 'history', machine: 'm', agent: 'claude', id: 'x/y' }, { name: 'files', machine: 'm', path: '/a/ü?#', session: '' },
  ];
  test.each(routes)('$name comes back from its address', (route) => expect(parseRoute(hrefOf(route))).toEqual(route));
  test('nonsense_is_the_inbox', () => expect(parseRoute('#/%E0%A4%A/x')).toEqual({ name: 'inbox' }));
  test('the_key_in_the_qr_code_is_no_place', () => {
    // Browsers that know directives do not even show it to the page; others do.
    const key = '#:~:e2e=SHA256:s/new+files/A0?x';
    expect(parseRoute(key)).toEqual({ name: 'inbox' });
    const told = parseAddress(`https://relay.example/?token=demo${key}`);
    expect(told).toEqual(parseAddress('https://relay.example/?token=demo'));
    expect(told?.token).toBe('demo');
  });
});

describe('inbox', () => {
  const session = (id: string, more: Partial<Session>): Session => ({
    id, executor: 'claude', agent_session_id: null, title: id, first_message: null, project_path: '/p', model: null, permission_mode: null, status: 'idle', turn: null, turns: 1,
    queue: [], approvals: [], pending_approvals: 0, last_seq: 10, activity: null, usage: null, error: null, parent_id: null, origin: 'api', created_at: '2026-11-20T10:00:00.000Z',
    updated_at: '2026-11-20T10:00:00.000Z', ended_at: null, ...more,
  });
  const seen = { baseline: Date.parse('2026-11-20T11:00:00Z'), seqs: { read: 10, fresh: 4, broke: 10 } };
  test('what_needs_a_person_comes_first', () => {
    const rows = [
      session('old', {}), session('read', {}), session('fresh', {}), session('runs', { status: 'running' }), session('broke', { status: 'failed' }),
      session('new-broke', { status: 'failed', updated_at: '2026-11-20T12:00:00.000Z' }), session('asks', { status: 'waiting', pending_approvals: 1 }),
    ].map((one) => ({ session: one }));
    const order = arrange(rows, seen).map(({ group, rows: list }) => [group, list.map((row) => row.session.id)]);
    expect(order).toEqual([['needs', ['asks', 'new-broke']], ['running', ['runs']], ['unread', ['fresh']], ['recent', ['old', 'read', 'broke']]]);
  });
  test('a_new_device_does_not_begin_with_everything_unread', () => expect(isUnread(session('x', {}), seen)).toBe(false));
  test('a_session_that_was_only_parked_resumed_or_renamed_is_not_new_and_one_that_spoke_is', () => {
    const read = { baseline: 0, seqs: { x: { seq: 10, turns: 1, ran: false } } };
    for (const status of ['parked', 'starting', 'idle'] as const) expect(isUnread(session('x', { status, last_seq: 12 }), read)).toBe(false);
    expect(isUnread(session('x', { last_seq: 20, turns: 2 }), read)).toBe(true);
    expect(isUnread(session('x', { last_seq: 12, status: 'failed' }), read)).toBe(true);
    // What went wrong and can be tried again needs somebody, until that was looked at.
    const cut = { status: 'parked', problem: { kind: 'turn_cut', message: '', api_status: null, can_retry: true } } as const;
    expect(groupOf(session('x', { ...cut, last_seq: 12 }), read)).toBe('needs');
    expect(groupOf(session('x', { ...cut, last_seq: 10 }), read)).toBe('recent');
    expect(groupOf(session('x', { ...cut, problem: { ...cut.problem, can_retry: false }, last_seq: 12 }), read)).toBe('unread');
    // Looked at in the middle of a turn, which then went on.
    const middle = { baseline: 0, seqs: { x: { seq: 10, turns: 1, ran: true } } };
    expect(isUnread(session('x', { status: 'parked', last_seq: 15 }), middle)).toBe(true);
    expect(isUnread(session('x', { status: 'parked', last_seq: 10 }), middle)).toBe(false);
  });
  test('search_wants_all_words', () => {
    expect(matches(session('Fix login', { project_path: '/home/shop' }), 'login SHOP')).toBe(true);
    expect(matches(session('Fix login', {}), 'login shop')).toBe(false);
  });
});

describe('link', () => {
  class FakeSocket {
    static made: FakeSocket[] = [];
    static readonly OPEN = 1;
    readyState = 1;
    onmessage: ((event: { data: string }) => void) | null = null;
    onclose: (() => void) | null = null;
    onerror: (() => void) | null = null;
    sent: string[] = [];
    constructor(readonly url: string) { FakeSocket.made.push(this); }
    send(text: string): void { this.sent.push(text); }
    close(): void { this.readyState = 3; this.onclose?.(); }
    say(frame: object): void { this.onmessage?.({ data: JSON.stringify(frame) }); }
  }
  const machine = machineOf('http://s/', 'demo');
  let since = 0;
  const frames: Frame[] = [];
  const make = (): Link => new Link(machine, { sse: () => `api/x?since=${since}`, socket: () => `api/x/ws?since=${since}`, frame: (frame) => void frames.push(frame) });

  beforeEach(() => {
    vi.useFakeTimers();
    FakeSocket.made = [];
    frames.length = 0;
    since = 0;
    vi.stubGlobal('WebSocket', FakeSocket);
    vi.stubGlobal('fetch', vi.fn(async () => new Response('{"type":"health"}')));
    return () => {
      vi.useRealTimers();
      vi.unstubAllGlobals();
    };
  });

  test('a_broken_line_is_taken_up_at_once_after_the_last_event', async () => {
    const link = make();
    link.start();
    FakeSocket.made[0]?.say({ type: 'event', event: { seq: 5 } });
    expect(link.status.value.state).toBe('live');
    since = 5;
    await vi.advanceTimersByTimeAsync(5_000);
    FakeSocket.made[0]?.close();
    await vi.advanceTimersByTimeAsync(50);
    expect(FakeSocket.made[1]?.url).toBe('ws://s/t/demo/api/x/ws?since=5');
    link.stop();
  });

  test('a_silent_socket_is_asked_and_given_up', async () => {
    const link = make();
    link.start();
    FakeSocket.made[0]?.say({ type: 'hello' });
    await vi.advanceTimersByTimeAsync(21_000);
    expect(FakeSocket.made[0]?.sent).toEqual(['{"type":"ping"}']);
    await vi.advanceTimersByTimeAsync(7_000);
    expect(FakeSocket.made.length).toBeGreaterThan(1);
    link.stop();
  });

  test('without_sockets_it_streams', async () => {
    vi.stubGlobal('fetch', vi.fn(async (url: URL) => (String(url).includes('limit=1') ? new Response('{}') : new Response(new ReadableStream({ start: (c) => c.enqueue(new TextEncoder().encode('id: 1\ndata: {"seq":1,"type":"text"}\n\n')) })))));
    const link = make();
    link.start();
    for (let n = 0; n < 2; n++) {
      FakeSocket.made[n]?.close();
      await vi.advanceTimersByTimeAsync(2_000);
    }
    await vi.advanceTimersByTimeAsync(2_000);
    expect(link.status.value).toMatchObject({ state: 'live', way: 'sse' });
    expect(frames).toEqual([{ type: 'event', event: { seq: 1, type: 'text' } }]);
    link.stop();
  });

  test('it_says_what_is_wrong_and_since_when_and_tries_on', async () => {
    vi.stubGlobal('fetch', vi.fn(async () => new Response('{"code":"client_offline"}', { status: 503 })));
    const link = make();
    link.start();
    FakeSocket.made[0]?.say({ type: 'hello' });
    const lost = Date.now();
    FakeSocket.made[0]?.close();
    await vi.advanceTimersByTimeAsync(10);
    expect(link.status.value).toMatchObject({ state: 'down', trouble: 'edge', since: lost });
    for (let n = 0; n < 60; n++) {
      await vi.advanceTimersByTimeAsync(1_000);
      const last = FakeSocket.made[FakeSocket.made.length - 1];
      if (last?.readyState === 1) last.close();
    }
    expect(FakeSocket.made.length).toBeGreaterThan(4);
    expect(link.status.value).toMatchObject({ state: 'down', since: lost });
    link.stop();
  });

  test('a_flapping_server_is_not_hammered', async () => {
    const link = make();
    link.start();
    for (let n = 0; n < 200; n++) {
      const last = FakeSocket.made[FakeSocket.made.length - 1];
      if (last?.readyState === 1) {
        last.say({ type: 'hello' });
        last.close();
      }
      await vi.advanceTimersByTimeAsync(100);
    }
    expect(FakeSocket.made.length).toBeLessThan(15);
    link.stop();
  });
});

test('both_languages_have_the_same_words', () => {
  expect(Object.keys(zh).sort()).toEqual(Object.keys(en).sort());
  for (const key of Object.keys(en) as (keyof typeof en)[]) expect(typeof zh[key]).toBe(typeof en[key]);
});
