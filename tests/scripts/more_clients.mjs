// Vercel's ai with @ai-sdk/openai and @ai-sdk/openai-compatible, unchanged, against a running server.
//
//     node more_clients.mjs HOST:PORT
import assert from "node:assert";
import { createOpenAI } from "@ai-sdk/openai";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { generateObject, generateText, stepCountIs, streamObject, streamText, tool } from "ai";
import { z } from "zod";

globalThis.AI_SDK_LOG_WARNINGS = false;
const baseURL = `http://${process.argv[2]}/v1`;
const name = (await (await fetch(`${baseURL}/models`)).json()).data[0].id;
const openai = createOpenAI({ baseURL, apiKey: "none" });
const compatible = createOpenAICompatible({ name: "woolly", baseURL, supportsStructuredOutputs: true, includeUsage: true });
// The first one's own way is /v1/responses.
const models = { responses: openai(name), chat: openai.chat(name), completions: openai.completion(name), compatible: compatible(name) };

const prompt = "Which brick do you like? Say its colour and size.";
const Brick = z.object({ colour: z.enum(["red", "green", "blue"]), size: z.number().int().min(1).max(9) }).strict();

async function texts(model) {
  const common = { model, prompt, temperature: 0, maxOutputTokens: 12 };
  const whole = await generateText(common);
  assert(whole.text && whole.usage.outputTokens > 0, JSON.stringify(whole.usage));
  let pieces = "";
  const streamed = streamText(common);
  for await (const piece of streamed.textStream) pieces += piece;
  assert.equal(pieces, whole.text);
  assert.equal((await streamed.usage).outputTokens, whole.usage.outputTokens);
  // What was answered goes back as it came. Without `store: false` the SDK sends ids of items to /v1/responses instead, and nothing is stored.
  const providerOptions = { openai: { store: false } };
  const messages = [{ role: "user", content: prompt }, ...whole.response.messages, { role: "user", content: "Go on." }];
  assert((await generateText({ ...common, prompt: undefined, messages, providerOptions })).text);
}

async function objects(model) {
  const common = { model, prompt, schema: Brick, temperature: 0, maxOutputTokens: 100 };
  const whole = await generateObject(common);
  Brick.parse(whole.object);
  const streamed = streamObject(common);
  for await (const part of streamed.partialObjectStream) assert.equal(typeof part, "object");
  assert.deepEqual(await streamed.object, whole.object);
}

async function tools(model) {
  const ordered = [];
  const order_brick = tool({
    description: "Orders a brick.",
    inputSchema: Brick,
    execute: async (brick) => { ordered.push(Brick.parse(brick)); return "Ordered."; },
  });
  const common = { model, prompt, tools: { order_brick }, temperature: 0, maxOutputTokens: 200 };
  for (const toolChoice of ["required", { type: "tool", toolName: "order_brick" }]) {
    const whole = await generateText({ ...common, toolChoice });
    assert.equal(whole.finishReason, "tool-calls");
    const streamed = streamText({ ...common, toolChoice });
    assert.deepEqual((await streamed.toolCalls).map((call) => call.input), whole.toolCalls.map((call) => call.input));
  }
  // A second step sends back what the first one said and what the tool made of it.
  const steps = (await generateText({ ...common, toolChoice: "required", stopWhen: stepCountIs(2) })).steps;
  assert(steps.length === 2 && steps[1].toolCalls.length > 0, `${steps.length} steps`);
  assert(ordered.length >= 4, `${ordered.length} bricks were ordered`);
}

let failed = false;
for (const [door, model] of Object.entries(models)) {
  for (const check of door === "completions" ? [texts] : [texts, objects, tools]) {
    const begun = performance.now();
    const seconds = () => ((performance.now() - begun) / 1000).toFixed(1);
    try {
      await check(model);
      console.log(`ai, ${door}, ${check.name}: passed after ${seconds()} s`);
    } catch (error) {
      failed = true;
      console.log(`ai, ${door}, ${check.name}: failed after ${seconds()} s`);
      console.error(error);
    }
  }
}
process.exit(failed ? 1 : 0);
