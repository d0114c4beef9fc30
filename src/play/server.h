// Serves a running session to browsers: the page over HTTP, poses and commands over WebSocket (/ws).
//
// Input: a session (used by the server's simulation thread alone while run() lasts) and a folder with the built page.
// Threads: run() drives the network in the calling thread and the session in a thread of its own, at control rate in
// real time. They meet only in a bounded queue of commands and in slots for the newest pose and status, so neither a
// slow client nor none disturbs the simulation: a client that cannot keep up misses frames, one that does not read at
// all is disconnected. stop() may be called from any thread.
// Safety: by default only this machine can connect; requests whose Host is a foreign name, or WebSockets from another
// site's page, are refused (DNS rebinding). Errors: Error from the constructor when it cannot listen.
#pragma once

#include <filesystem>
#include <memory>
#include <string>

#include "play/session.h"

namespace calm {

struct ServerSettings {
  std::string host = "127.0.0.1";  // address or name to listen on
  int port = 8080;                 // 0: any free one
  std::filesystem::path web{};     // folder of the built page
  double seconds = 0.0;            // run() returns after this time; 0: at stop() or a signal
  bool handle_signals = false;     // SIGINT and SIGTERM end run()
  int max_connections = 64;        // further ones are closed at once
  size_t max_message = 4096;       // bytes, of a client's message
};

class Server {
 public:
  // Listens from here on. Throws Error: address in use, not to be had, or unknown.
  Server(Session& session, const ServerSettings& settings);
  ~Server();
  Server(const Server&) = delete;
  Server& operator=(const Server&) = delete;

  int port() const;
  std::string url() const;  // "http://127.0.0.1:8080/"

  // Simulates and serves until it is stopped. Throws what the simulation threw. Call once.
  void run();
  void stop();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace calm
