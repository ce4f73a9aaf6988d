// Composes VirtualFS (the URL is the first argument) with a tiny subgraph that extends Airport, asks
// the queries that come as JSON on the standard input, and prints the answers as JSON.
import { readFileSync } from "node:fs";
import { ApolloGateway, IntrospectAndCompose } from "@apollo/gateway";
import { ApolloServer } from "@apollo/server";
import { startStandaloneServer } from "@apollo/server/standalone";
import { buildSubgraphSchema } from "@apollo/subgraph";
import { parse } from "graphql";

const cities = { JFK: "New York", EWR: "Newark" };
const typeDefs = parse(`
  extend schema @link(url: "https://specs.apollo.dev/federation/v2.3", import: ["@key"])
  type Airport @key(fields: "origin") { origin: String! city: String }
  type Query { hubs: [Airport!]! }
`);
const resolvers = {
  Airport: { city: (airport) => cities[airport.origin] },
  Query: { hubs: () => ["JFK", "EWR", "nowhere"].map((origin) => ({ origin })) },
};
const cityServer = new ApolloServer({ schema: buildSubgraphSchema([{ typeDefs, resolvers }]) });
const { url } = await startStandaloneServer(cityServer, { listen: { port: 0, host: "127.0.0.1" } });
const gateway = new ApolloGateway({
  supergraphSdl: new IntrospectAndCompose({
    subgraphs: [
      { name: "features", url: process.argv[2] },
      { name: "cities", url },
    ],
  }),
  logger: { debug() {}, info() {}, warn: console.error, error: console.error },
});
const server = new ApolloServer({ gateway });
await server.start();
const answers = [];
for (const query of JSON.parse(readFileSync(0, "utf8"))) {
  const { body } = await server.executeOperation({ query });
  answers.push(body.singleResult);
}
console.log(JSON.stringify(answers));
await server.stop();
await cityServer.stop();
process.exit(0);
