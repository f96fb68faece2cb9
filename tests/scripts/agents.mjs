// openai-node, unchanged, against a running server: tools by its runner, a schema by its parser, responses streamed.
//
//     node agents.mjs HOST:PORT
import OpenAI from "openai";
import { zodResponseFormat } from "openai/helpers/zod";
import { z } from "zod";
import assert from "node:assert";

const client = new OpenAI({ baseURL: `http://${process.argv[2]}/v1`, apiKey: "none" });
const model = (await client.models.list()).data[0].id;
const messages = [{ role: "user", content: "Which brick do you like? Say its colour and size." }];
const Brick = z.object({ colour: z.enum(["red", "green", "blue"]), size: z.number().int().min(1).max(9) }).strict();

let ordered;
const tools = [{
  type: "function",
  function: {
    name: "order_brick",
    description: "Orders a brick.",
    parse: JSON.parse,
    parameters: {
      type: "object",
      properties: { colour: { enum: ["red", "green", "blue"] }, size: { type: "integer", minimum: 1, maximum: 9 } },
      required: ["colour", "size"],
      additionalProperties: false,
    },
    function: (brick) => { ordered = Brick.parse(brick); return "Ordered."; },
  },
}];
for (const stream of [false, true]) {
  ordered = undefined;
  const named = { type: "function", function: { name: "order_brick" } };
  const runner = client.chat.completions.runTools({ model, messages, tools, tool_choice: named, stream, max_tokens: 200, temperature: 0 });
  await runner.done();
  assert(ordered, `no brick was ordered (stream: ${stream})`);
}

const parsed = await client.chat.completions.parse({
  model, messages, response_format: zodResponseFormat(Brick, "brick"), max_tokens: 100, seed: 3,
});
Brick.parse(parsed.choices[0].message.parsed);

const kinds = [];
const events = await client.responses.create({ model, input: messages, max_output_tokens: 12, stream: true });
for await (const event of events) kinds.push(event.type);
assert.equal(kinds[0], "response.created");
assert(["response.completed", "response.incomplete"].includes(kinds.at(-1)), kinds.join());
console.log("openai-node: passed");
