import { describe, expect, test } from 'vitest';
import { conceals, leavesOf, otherFields, splitPath, toolOf, withLeaves } from '../../src/model/approval';
import { parseDiff } from '../../src/model/diff';
import type { AgentEvent, Approval, Entry } from '../../src/model/events';
import { modeOf, modeWord } from '../../src/model/mode';
import { Timeline, type ToolItem } from '../../src/model/timeline';
import type { Session } from '../../src/net/types';

const approval = (fields: Partial<Approval>): Approval => ({
  id: 'a', tool_call_id: null, tool_name: 'Bash', kind: 'command', title: '', reason: null, input: {}, can_allow_session: false, can_edit: false, ...fields,
});

describe('what is asked for', () => {
  test('a_tool_of_a_server_is_named_with_it', () => {
    expect(toolOf('mcp__payments__transfer_all')).toEqual({ name: 'transfer_all', server: 'payments' });
    expect(toolOf('mcp__payments')).toEqual({ name: '', server: 'payments' });
    expect(toolOf('Bash')).toEqual({ name: 'Bash', server: '' });
  });

  test('every_argument_that_nothing_else_shows_is_a_field', () => {
    const names = (fields: Partial<Approval>): string[] => otherFields(approval(fields)).map(([name]) => name);
    expect(names({ input: { command: 'ls', cwd: '/srv', timeout: 9, background: false, gone: null, unheardOf: [] } })).toEqual(['cwd', 'timeout', 'background', 'unheardOf']);
    expect(names({ reason: 'To see', input: { command: 'ls', description: 'To see' } })).toEqual([]);
    expect(names({ reason: 'Another', input: { command: 'ls', description: 'To see' } })).toEqual(['description']);
    const changes = [{ path: 'a', diff: '' }];
    expect(names({ kind: 'edit', changes, input: { file_path: 'a', old_string: 'x', new_string: 'y', replace_all: true } })).toEqual(['replace_all']);
    // Where no diff shows them, the texts are fields.
    expect(names({ kind: 'edit', input: { file_path: 'a', content: 'x' } })).toEqual(['file_path', 'content']);
    expect(names({ kind: 'plan', input: { plan: '# P', allowedPrompts: [] } })).toEqual(['allowedPrompts']);
  });

  test('a_hidden_character_is_found_wherever_it_stands', () => {
    const bad = 'x\u202ey';
    for (const fields of [
      { tool_name: bad }, { title: bad }, { reason: bad }, { input: { deep: [{ er: bad }] } }, { input: { [bad]: 1 } }, { changes: [{ path: bad, diff: '' }] },
      { questions: [{ text: 'Q', header: null, options: ['a'], descriptions: [bad], multiple: false }] }, { session_grants: [{ type: 'named' as const, name: bad }] },
    ]) expect(conceals(approval(fields)), JSON.stringify(fields)).toBe(true);
    expect(conceals(approval({ input: { command: 'echo ä 中文 👍\n\tok\r\n' } }))).toBe(false);
    expect(conceals(approval({}), [{ path: 'a', action: 'edit', outside_project: false, diff: `+${bad}`, problem: null }])).toBe(true);
  });

  test('a_path_is_cut_before_its_name', () => {
    expect(splitPath('/home/me/app.ts')).toEqual(['/home/me/', 'app.ts']);
    expect(splitPath('C:\\work\\app.ts')).toEqual(['C:\\work\\', 'app.ts']);
    expect(splitPath('app.ts')).toEqual(['', 'app.ts']);
    expect(splitPath('/home/me/')).toEqual(['', '/home/me/']);
  });

  test('a_hunk_whose_place_is_not_known_has_no_line_numbers', () => {
    const lines = parseDiff('@@ -7 +7 @@\n-a\n+b\n@@\n-c\n+d\n');
    expect(lines.map(({ old, new: now }) => old ?? now)).toEqual([null, 7, 7, null, null, null]);
    expect(parseDiff('')).toEqual([]);
  });
});

describe('changing what is asked for', () => {
  test('texts_are_texts_and_all_else_stays_exactly_as_it_was', () => {
    const input = { command: 'a\nb', timeout: 5, nested: { list: [{ on: true, text: 'x' }] }, nothing: null };
    const leaves = leavesOf(input);
    expect(leaves?.map(({ path }) => path.join('.'))).toEqual(['command', 'timeout', 'nested.list.0.on', 'nested.list.0.text']);
    expect(withLeaves(input, new Map())).toEqual(input);
    expect(withLeaves(input, new Map<string, string | boolean>([[JSON.stringify(['command']), 'c'], [JSON.stringify(['nested', 'list', 0, 'on']), false]]))).toEqual({
      command: 'c', timeout: 5, nested: { list: [{ on: false, text: 'x' }] }, nothing: null,
    });
  });

  test('line_ends_of_windows_come_back_and_mixed_ones_are_no_form', () => {
    const input = { content: 'a\r\nb\r\n' };
    expect(withLeaves(input, new Map([[JSON.stringify(['content']), 'a\nc\n']]))).toEqual({ content: 'a\r\nc\r\n' });
    expect(leavesOf(input)).not.toBe(null);
    expect(leavesOf({ content: 'a\r\nb\n' })).toBe(null);
    expect(leavesOf({ content: 'a\rb' })).toBe(null);
    expect(leavesOf('text')).toBe(null);
    expect(leavesOf({})).toBe(null);
  });

  test('the_record_keeps_what_was_asked_and_what_ran_through_later_words_about_the_call', () => {
    const call: AgentEvent = { type: 'tool_call', id: 'c', name: 'Bash', kind: 'command', title: 'rm -rf build', input: { command: 'rm -rf build' } };
    const ask: AgentEvent = { type: 'approval', ...approval({ id: 'q', tool_call_id: 'c', input: { command: 'rm -rf build' } }) };
    const resolved: AgentEvent = { type: 'approval_resolved', id: 'q', outcome: 'allowed', edited: { asked: { command: 'rm -rf build' }, ran: { command: 'ls' } } };
    const again: AgentEvent = { ...call, title: 'ls', input: { command: 'ls' } };
    const result: AgentEvent = { type: 'tool_result', id: 'c', output: 'ok', delta: false, is_error: false };
    const timeline = new Timeline();
    timeline.apply([call, ask, resolved, again, result].map((event, index): Entry => ({ seq: index + 1, time: 0, event })));
    expect(timeline.items[0] as ToolItem).toMatchObject({ state: 'done', asked: { command: 'rm -rf build' }, ran: { command: 'ls' } });
  });
});

describe('the mode', () => {
  test('is_named_by_the_agent', () => {
    for (const [word, mode] of [
      ['default', 'default'], ['autoEdit', 'acceptEdits'], ['yolo', 'bypassPermissions'], ['untrusted, workspace-write', 'default'], ['on-request, workspace-write', 'acceptEdits'],
      ['never, read-only', 'plan'], ['never, danger-full-access', 'bypassPermissions'], ['dontAsk', 'dontAsk'],
    ] as const) expect(modeWord(word), word).toBe(mode);
  });

  test('is_what_the_agent_says_while_it_runs_and_what_is_wanted_before', () => {
    const facts = { agentSessionId: null, model: null, cwd: null, mode: 'acceptEdits' };
    expect(modeOf({ status: 'running', permission_mode: 'plan' } as Session, facts)).toBe('acceptEdits');
    expect(modeOf({ status: 'parked', permission_mode: 'plan' } as Session, facts)).toBe('plan');
    expect(modeOf({ status: 'running', permission_mode: 'plan' } as Session, { ...facts, mode: null })).toBe('plan');
  });
});
