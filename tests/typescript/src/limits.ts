/** Limits of version 1 on what comes from outside. */

export const MOST = {
  blocks: 2 ** 20,
  tokens: 2 ** 24,
  /** Challenges of a commitment, and so rounds and flips. */
  challenges: 64,
  nameBytes: 256,
  keys: 1024,
  signatures: 16,
  noteNameBytes: 255,
  noteSignatures: 100,
  noteLineBytes: 8192,
  logLeafBytes: 512,
} as const;

export const LEAST_NONCE_BYTES = 16;
export const MOST_NONCE_BYTES = 64;
