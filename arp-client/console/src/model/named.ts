//! Looking up by a name that somebody else chose: `constructor` and `__proto__` are names like any other.

/** What a record holds under a name, and nothing that every object has. */
export const named = <T>(record: Readonly<Record<string, T>>, name: string): T | undefined => (Object.hasOwn(record, name) ? record[name] : undefined);
