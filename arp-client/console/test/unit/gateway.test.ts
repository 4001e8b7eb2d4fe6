//! What the gateway's pages make of the API's numbers.

import { afterEach, describe, expect, test, vi } from 'vitest';
import { cacheShare, isBad, lastDays, modelOf, tokensOf } from '../../src/gateway/parts';
import type { GatewayRequest } from '../../src/gateway/types';
import { hrefOf, parseRoute } from '../../src/state/route';

afterEach(() => vi.unstubAllEnvs());

describe('days', () => {
  test.each(['UTC', 'Europe/Berlin', 'Asia/Shanghai', 'Pacific/Apia', 'America/New_York'])('each_day_once_also_when_clocks_change (%s)', (zone) => {
    vi.stubEnv('TZ', zone);
    for (const now of ['2026-03-30T00:30:00Z', '2026-10-26T23:59:00Z', '2026-11-02T04:30:00Z', '2027-01-01T00:00:00Z']) {
      const days = lastDays(40, Date.parse(now));
      expect(new Set(days).size).toBe(40);
      expect([...days].sort()).toEqual(days);
      for (let n = 1; n < days.length; n++) expect(Date.parse(`${days[n]}T00:00Z`) - Date.parse(`${days[n - 1]}T00:00Z`)).toBe(86_400_000);
    }
  });
});

describe('counts', () => {
  test('what_the_cache_served_is_input_too', () => {
    const sum = { input: 10, cache_write: 30, cache_read: 60, output: 5 };
    expect(tokensOf(sum)).toBe(105);
    expect(cacheShare(sum)).toBe('60%');
    expect(cacheShare({ input: 0, cache_write: 0, cache_read: 0 })).toBe('');
  });
  test('an_error_in_an_answer_of_200_is_one', () => {
    const request = { status: 200, error: null } as GatewayRequest;
    expect(isBad(request)).toBe(false);
    expect(isBad({ ...request, error: 'the stream broke' })).toBe(true);
    expect(isBad({ ...request, status: null })).toBe(true);
  });
  test('a_model_that_took_the_place_of_another_is_told_with_it_and_hides_nothing', () => {
    expect(modelOf({ model: 'opus', routed: 'haiku' })).toBe('opus → haiku');
    expect(modelOf({ model: 'opus', routed: 'opus' })).toBe('opus');
    expect(modelOf({ model: 'a\u202eb', routed: null })).toBe('a‹U+202E›b');
  });
});

test('places_of_the_gateway_are_read_as_they_are_written', () => {
  for (const tab of ['overview', 'routing', 'usage'] as const) expect(parseRoute(hrefOf({ name: 'gateway', machine: 'a/b c', tab }))).toEqual({ name: 'gateway', machine: 'a/b c', tab });
  expect(parseRoute('#/gateway/m/nonsense')).toEqual({ name: 'gateway', machine: 'm', tab: 'overview' });
});
