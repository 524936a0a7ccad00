/** Vectors of quantised vectors, of bills, and of caps. */

import { hex, unhex } from "../bytes.js";
import { billsAlike, billsWhatIsCommitted, type Billed } from "../checks/receipt.js";
import { drawSampled, drawWhole } from "../draw.js";
import { orRefuse, ensure } from "../errors.js";
import { Ledger, capsOf, type Exposed } from "../exposure.js";
import { ReasoningCounting } from "../gen/coin_protocol/v1/statements_pb.js";
import { ShapeError, type Fields, type Json } from "../json.js";
import { areWindows, decode, encode, numbers } from "../quantised.js";

export const QUANTISE: Readonly<Record<string, (input: Fields) => Json>> = {
  quantise: (input) => {
    const row = encode(input.numbers("numbers"));
    return { row: hex(orRefuse(row, "QuantisationError", "no vector for a float32 scale")) };
  },
  dequantise: (input) => {
    const vector = decode(input.bytes("row"), input.number("dimension"));
    return { numbers: numbers(orRefuse(vector, "QuantisationError", "no quantised vector")) };
  },
  check_windows: (input) => {
    const [dimension, length] = [input.number("dimension"), input.number("window_tokens")];
    const windows = input.texts("windows").map(unhex);
    const hold = areWindows(windows, dimension, length, input.number("token_count"));
    ensure(hold, "WINDOW_EMBEDDING", "a window is missing, or no unit vector");
    return "ok";
  },
};

function counting(name: string): ReasoningCounting {
  const short = name.replace(/^REASONING_COUNTING_/, "");
  if (!(short in ReasoningCounting)) throw new ShapeError(`no convention ${name}`);
  return ReasoningCounting[short as keyof typeof ReasoningCounting];
}

function usage(fields: Fields): Billed {
  return {
    promptTokens: fields.integer("prompt_tokens"),
    cachedPromptTokens: fields.integer("cached_prompt_tokens"),
    completionTokens: fields.integer("completion_tokens"),
    reasoningTokens: fields.integer("reasoning_tokens"),
    reasoningCounting: counting(fields.text("reasoning_counting")),
  };
}

export const USAGE: Readonly<Record<string, (input: Fields) => Json>> = {
  verify_usage: (input) => {
    const [reasoning, answer] = [input.integer("reasoning_tokens"), input.integer("answer_tokens")];
    const holds = billsWhatIsCommitted(usage(input.object("usage")), reasoning, answer);
    ensure(holds, "VerificationError", "the bill counts other tokens");
    return "ok";
  },
  told_as_signed: (input) => {
    return { same: billsAlike(usage(input.object("told")), usage(input.object("signed"))) };
  },
};

function capsIn(fields: Fields) {
  return {
    tokensPpm: fields.number("tokens_ppm"),
    blocksPpm: fields.number("blocks_ppm"),
    minTokens: fields.number("min_tokens"),
    minBlocks: fields.number("min_blocks"),
    wholeBlocksPpm: fields.number("whole_blocks_ppm"),
    runTokens: fields.number("run_tokens"),
  };
}

function spelled({ tokens, embeddings, wholeBlocks }: Exposed) {
  return {
    tokens: Number(tokens),
    block_embeddings: Number(embeddings),
    whole_blocks: Number(wholeBlocks),
  };
}

/** Answers a challenge where the caps allow it; says whether they did. */
function answer(ledger: Ledger, challenge: Fields): boolean {
  const [seed, blocks] = [challenge.bytes("seed"), challenge.number("blocks")];
  const { sizes, caps } = ledger;
  if (challenge.text("kind") === "whole-challenge") {
    const answered = ledger.allowsWhole(blocks);
    if (answered) ledger.whole(drawWhole(seed, blocks, sizes.length));
    return answered;
  }
  const tokenBlocks = challenge.number("token_blocks");
  const asked = { blocks, tokenBlocks, tokensPerBlock: challenge.number("tokens_per_block") };
  const answered = ledger.allowsSampled(asked);
  if (answered) ledger.sampled(drawSampled(seed, asked, sizes, caps.runTokens));
  return answered;
}

export const EXPOSURE: Readonly<Record<string, (input: Fields) => Json>> = {
  caps: (input) => {
    const caps = capsIn(input.object("caps"));
    return spelled(capsOf(caps, input.integer("tokens"), input.number("blocks")));
  },
  ledger: (input) => {
    const ledger = new Ledger(input.numbers("token_counts"), capsIn(input.object("caps")));
    const steps = input.objects("challenges").map((challenge) => {
      return { answered: answer(ledger, challenge), ...spelled(ledger.exposed) };
    });
    return { steps };
  },
};
