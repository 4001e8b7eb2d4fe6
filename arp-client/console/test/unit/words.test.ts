//! Every word of the console in both languages: nothing left in English, nothing written past the dictionary, and every
//! refusal of an edge or relay has its Chinese sentence.

import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { en as gatewayEn, zh as gatewayZh } from '../../src/gateway/words';
import { en } from '../../src/i18n/en';
import { zhErrors, zhProblem } from '../../src/i18n/errors';
import { zh } from '../../src/i18n/zh';

const SRC = join(import.meta.dirname, '../../src');
const ROOT = join(SRC, '../../..');
const sources = (dir: string): string[] =>
  readdirSync(dir, { withFileTypes: true }).flatMap((entry) => (entry.isDirectory() ? sources(join(dir, entry.name)) : /\.tsx?$/.test(entry.name) ? [join(dir, entry.name)] : []));

type Words = { [key: string]: string | ((...args: never[]) => string) | Words };
/** All texts of a dictionary by their key; those that take something are given samples. */
function texts(words: Words, before = ''): [string, string][] {
  return Object.entries(words).flatMap(([key, value]): [string, string][] => {
    if (typeof value === 'string') return [[before + key, value]];
    if (typeof value === 'function') return [[before + key, (value as (...args: unknown[]) => string)(3, 7, 9)]];
    return texts(value, `${before}${key}.`);
  });
}

/** Names and codes that are the same in every language. */
const SAME = /Authorization|x-api-key|JSON Web Token|Bearer|PEM|arpc?|Claude Code|Codex|Gemini CLI|HTTPS?|JSON|Enter|Shift|Ctrl|Git|MCP|Service Worker|WebSocket|--[a-z-]+|‹U\+…›/g;

test('every_word_is_chinese', () => {
  const left = texts({ zh, gatewayZh } as unknown as Words).filter(([, text]) => !/[\u4e00-\u9fff]/.test(text) && /[A-Za-z]/.test(text.replace(SAME, '')));
  expect(left).toEqual([]);
  const english = texts({ zh, zhErrors, gatewayZh } as unknown as Words).filter(([, text]) => /[A-Za-z]{2,}/.test(text.replace(SAME, '')));
  expect(english).toEqual([]);
});

test('an_access_token_and_a_token_of_a_model_are_not_the_same_word', () => {
  for (const [key, text] of texts({ zh, zhErrors, gatewayZh } as unknown as Words)) {
    expect([key, text.replaceAll('访问令牌', '')]).toEqual([key, expect.not.stringContaining('令牌')]);
  }
  expect([zh.tokensIn, zh.tokensOut, zh.tokens('3')].every((text) => text.includes('词元'))).toBe(true);
});

test('every_key_is_used_and_every_use_has_its_key', () => {
  const code = sources(SRC).filter((file) => !file.includes('/i18n/en') && !file.includes('/i18n/zh') && !file.includes('/gateway/words')).map((file) => readFileSync(file, 'utf8')).join('\n');
  const used = new Set([...code.matchAll(/\bt\.(\w+)/g)].map((match) => match[1]));
  expect(Object.keys(en).filter((key) => !used.has(key))).toEqual([]);
  expect([...used].filter((key) => !(key as string in en))).toEqual([]);
  const ours = new Set([...code.matchAll(/\bw\.(\w+)/g)].map((match) => match[1]));
  expect(Object.keys(gatewayEn).filter((key) => !ours.has(key))).toEqual([]);
  expect([...ours].filter((key) => !(key as string in gatewayEn))).toEqual([]);
});

test('nothing_is_written_past_the_dictionary', () => {
  const found = sources(SRC).filter((file) => file.endsWith('.tsx')).flatMap((file) => {
    const code = readFileSync(file, 'utf8').replace(/\/\*[\s\S]*?\*\/|^\s*\/\/.*$/gm, '');
    const between = [...code.matchAll(/(?<![=\s])>([^<>{}=;()]*[A-Za-z]{2,}[^<>{}=;()]*)<\/?[a-z]/g)].map((match) => match[1]?.trim() ?? '');
    const attributes = [...code.matchAll(/\b(?:aria-label|title|placeholder|alt)="([^"]*[A-Za-z]{2,}[^"]*)"/g)].map((match) => match[1] ?? '');
    return [...between, ...attributes].map((text) => `${file.slice(SRC.length)}: ${text}`);
  });
  expect(found.filter((text) => /[A-Za-z]{2,}/.test(text.replace(/^.*?: /, '').replace(SAME, '')))).toEqual([]);
});

test('every_refusal_has_its_chinese_sentence', () => {
  const api = readFileSync(join(ROOT, 'docs/api.md'), 'utf8');
  const table = api.slice(api.indexOf('\n## 9. Errors'));
  const codes = [...table.split('\n').filter((line) => /^\| \d/.test(line)).join('\n').replace(/\([^)]*\)/g, '').matchAll(/`([a-z_]+)`/g)].map((match) => match[1] as string);
  const relay = readFileSync(join(ROOT, 'arp-server/src/answer.rs'), 'utf8');
  const more = [...relay.matchAll(/(?:Self::new\(Who::\w+, \d+,|\(50\d,) "([a-z_]+)"/g)].map((match) => match[1] as string);
  expect(codes.length).toBeGreaterThan(30);
  expect(more.length).toBeGreaterThan(3);
  // These are answers to requests that the console does not make.
  const never = new Set(['redirect', 'force', 'executor']);
  expect([...codes, ...more].filter((code) => !zhErrors[code] && !never.has(code))).toEqual([]);
});

test('why_an_agent_cannot_be_used_is_said_in_chinese', () => {
  const missing = zhProblem('Gemini CLI was not found on this machine (looked in PATH). Install it with `npm install -g @google/gemini-cli`, then run `gemini` once to log in.');
  expect(missing).toBe('这台机器上没有找到它。安装：npm install -g @google/gemini-cli，再运行 gemini。');
  expect(zhProblem('Codex 0.1.0 at /usr/bin/codex is too old, 0.150.0 or newer is needed. Install it with `npm install -g @openai/codex`, then run `codex login`.')).toMatch(/^0\.1\.0 版太旧，需要 0\.150\.0 或更新。/);
  expect(zhProblem('something new')).toBe('something new');
});
