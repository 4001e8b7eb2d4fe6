//! Small parts of the pretended server: errors, JSON, bodies.

import type { IncomingMessage, ServerResponse } from 'node:http';
import type { Outcome } from '../../src/model/events';
import type { Decision } from './edge.ts';

export type Body = Record<string, unknown>;

export class HttpError extends Error {
  constructor(readonly status: number, readonly code: string, message: string) {
    super(message);
  }
}

export function json(response: ServerResponse, status: number, answer: object): void {
  response.writeHead(status, { 'Content-Type': 'application/json' }).end(JSON.stringify(answer));
}

/** Reads a JSON body; a change without the JSON content type is refused, as the real edge does. */
export async function readBody(request: IncomingMessage): Promise<Body> {
  const chunks: Buffer[] = [];
  for await (const chunk of request) chunks.push(chunk as Buffer);
  if (!chunks.length) return {};
  if (!(request.headers['content-type'] ?? '').startsWith('application/json')) throw new HttpError(415, 'json_required', 'Send JSON.');
  return JSON.parse(Buffer.concat(chunks).toString()) as Body;
}

/** The outcome that a decision leads to. */
export const DECISIONS = (decision: Decision): Outcome =>
  decision.decision === 'deny' ? 'denied' : decision.for_session ? 'allowed_for_session' : 'allowed';
