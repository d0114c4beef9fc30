import { defineConfig } from "vite";

// `npm run dev` shows the page from its sources and takes the simulation from a `calm play` on its default port.
const server = "http://127.0.0.1:8080";

export default defineConfig({
  base: "./",
  build: { target: "es2022", chunkSizeWarningLimit: 900 },
  server: { host: "127.0.0.1", proxy: { "/ws": { target: server, ws: true, changeOrigin: true, rewriteWsOrigin: true } } },
});
