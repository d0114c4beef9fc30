// One coroutine per connection on one network thread. Rejected: a thread per client (a stuck one holds the lock that
// the others need) and a queue of frames per client (an old pose is worth nothing, and the queue grows without bound).
#include "play/server.h"

#include <boost/asio/awaitable.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/host_name.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/redirect_error.hpp>
#include <boost/asio/signal_set.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/beast/core.hpp>
#include <boost/beast/http.hpp>
#include <boost/beast/websocket.hpp>
#include <chrono>
#include <condition_variable>
#include <csignal>
#include <deque>
#include <mutex>
#include <optional>
#include <set>
#include <stop_token>
#include <thread>

#include "base/error.h"
#include "play/messages.h"
#include "play/pages.h"

namespace calm {

namespace {

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace http = beast::http;
namespace websocket = beast::websocket;
using asio::awaitable;
using asio::redirect_error;
using asio::use_awaitable;
using asio::ip::tcp;
using boost::system::error_code;
using Clock = std::chrono::steady_clock;
using Request = http::request<http::string_body>;
using Text = std::shared_ptr<const std::string>;
using namespace std::chrono_literals;

constexpr auto kRequestTimeout = 15s;        // to send a request, or to take an answer
constexpr auto kCloseTimeout = 300ms;        // what clients get to say goodbye
constexpr size_t kMaxRequestHeader = 16384;  // bytes
constexpr size_t kMaxPendingTexts = 64;      // a client with more unread texts is gone
constexpr size_t kMaxPendingCommands = 256;  // further ones are refused
constexpr int kMaxLateSteps = 6;             // control steps; after a longer stall the lost time is not made up

// `localhost:8080` -> `localhost`, `[::1]:8080` -> `::1`.
std::string host_of(std::string_view authority) {
  if (authority.starts_with('[')) return std::string(authority.substr(1, authority.find(']') - 1));
  return std::string(authority.substr(0, authority.find(':')));
}

bool is_address(const std::string& host) {
  error_code error;
  asio::ip::make_address(host, error);
  return !error;
}

// One watching browser. Lives on the network thread.
struct Client {
  explicit Client(beast::tcp_stream stream) : socket(std::move(stream)), wake(socket.get_executor()) {
    wake.expires_at(asio::steady_timer::time_point::max());
  }

  void send_text(Text text) {
    if (texts.size() >= kMaxPendingTexts) {
      // it sends or is sent much and reads nothing
      overflowed = true;
      beast::get_lowest_layer(socket).cancel();
      return;
    }
    texts.push_back(std::move(text));
    wake.cancel();
  }
  void send_frame(Text newest) {
    frame = std::move(newest);
    wake.cancel();
  }
  void close() {
    closing = true;
    wake.cancel();
  }

  websocket::stream<beast::tcp_stream> socket;
  asio::steady_timer wake;  // the writer waits on it
  std::deque<Text> texts;
  Text frame;  // newest one not yet sent
  bool closing = false, overflowed = false, reading = true;
};

}  // namespace

struct Server::Impl {
  Impl(Session& s, const ServerSettings& wanted) : session(s), settings(wanted), acceptor(network), signals(network) {
    listen();
    scene = std::make_shared<const std::string>(scene_message(session));
    publish();
    deliver();
  }
  ~Impl() { clients.clear(); }

  // --- listening ---

  void listen() {
    error_code error;
    if (settings.port < 0 || settings.port > 65535) fail("port {}: must be between 0 and 65535", settings.port);
    tcp::resolver resolver(network);
    const auto found = resolver.resolve(settings.host, std::to_string(settings.port),
                                        tcp::resolver::passive | tcp::resolver::numeric_service, error);
    if (error || found.empty())
      fail("{}: no such address to listen on ({}); see --host", settings.host, error.message());
    const tcp::endpoint endpoint = *found.begin();
    acceptor.open(endpoint.protocol(), error);
    if (!error) acceptor.set_option(asio::socket_base::reuse_address(true), error);
    if (!error) acceptor.bind(endpoint, error);
    if (!error) acceptor.listen(asio::socket_base::max_listen_connections, error);
    if (error == asio::error::address_in_use)
      fail("port {} of {} is taken by another program; choose another with --port, or --port 0 for any free one",
           settings.port, settings.host);
    if (error == asio::error::access_denied)
      fail("port {} of {} may not be used ({}); choose one above 1023 with --port", settings.port, settings.host,
           error.message());
    if (error) fail("port {} of {}: cannot listen: {}; see --host", settings.port, settings.host, error.message());
    port = acceptor.local_endpoint().port();
  }

  awaitable<void> accept_connections() {
    for (;;) {
      error_code error;
      tcp::socket socket = co_await acceptor.async_accept(redirect_error(use_awaitable, error));
      if (stopping) co_return;
      if (error) {
        // out of descriptors, say: the ones in use must end first
        asio::steady_timer pause(network, 100ms);
        co_await pause.async_wait(redirect_error(use_awaitable, error));
        continue;
      }
      if (connections >= settings.max_connections) continue;
      asio::co_spawn(network, serve(std::move(socket)), asio::detached);
    }
  }

  // --- HTTP ---

  awaitable<void> serve(tcp::socket socket) {
    struct Count {
      explicit Count(int& c) : count(c) { ++count; }
      ~Count() { --count; }
      int& count;
    } count(connections);

    error_code error;
    socket.set_option(tcp::no_delay(true), error);
    beast::tcp_stream stream(std::move(socket));
    beast::flat_buffer buffer(kMaxRequestHeader + settings.max_message);
    while (!stopping) {
      http::request_parser<http::string_body> parser;
      parser.header_limit(kMaxRequestHeader);
      parser.body_limit(settings.max_message);
      stream.expires_after(kRequestTimeout);
      co_await http::async_read(stream, buffer, parser, redirect_error(use_awaitable, error));
      if (error == http::error::end_of_stream || error == beast::error::timeout) break;
      if (error) {
        co_await write(stream, answer(Request{}, http::status::bad_request, "bad request"));
        break;
      }
      const Request request = parser.release();
      if (!host_allowed(request)) {
        co_await write(stream, answer(request, http::status::forbidden,
                                      "this server answers to its address or localhost; see --host"));
        break;
      }
      if (websocket::is_upgrade(request)) {
        if (request.target() == "/ws" && same_origin(request)) {
          stream.expires_never();  // the WebSocket has timeouts of its own
          co_await serve_client(std::move(stream), request);
          co_return;
        }
        const bool known = request.target() == "/ws";
        co_await write(stream, answer(request, known ? http::status::forbidden : http::status::not_found,
                                      known ? "pages of other sites may not connect" : "not found"));
        break;
      }
      if (!co_await write(stream, answer(request))) break;
    }
    stream.socket().shutdown(tcp::socket::shutdown_send, error);
  }

  // True if the connection can be kept for the next request.
  awaitable<bool> write(beast::tcp_stream& stream, http::response<http::string_body> response) {
    error_code error;
    stream.expires_after(kRequestTimeout);
    co_await http::async_write(stream, response, redirect_error(use_awaitable, error));
    co_return !error && response.keep_alive();
  }

  http::response<http::string_body> answer(const Request& request, http::status status, const std::string& text) const {
    http::response<http::string_body> response(status, 11);
    response.set(http::field::content_type, "text/plain; charset=utf-8");
    response.body() = text + "\n";
    finish(request, response);
    response.keep_alive(false);
    return response;
  }

  http::response<http::string_body> answer(const Request& request) const {
    if (request.method() != http::verb::get && request.method() != http::verb::head) {
      auto response = answer(request, http::status::method_not_allowed, "only GET and HEAD");
      response.set(http::field::allow, "GET, HEAD");
      return response;
    }
    Page page = find_page(settings.web, std::string_view(request.target().data(), request.target().size()));
    http::response<http::string_body> response(http::int_to_status(static_cast<unsigned>(page.status)), 11);
    response.set(http::field::content_type, page.type);
    response.set(http::field::cache_control, page.cache);
    response.body() = std::move(page.body);
    finish(request, response);
    return response;
  }

  void finish(const Request& request, http::response<http::string_body>& response) const {
    response.set(http::field::server, "calm");
    response.set("X-Content-Type-Options", "nosniff");
    response.set("Referrer-Policy", "no-referrer");
    response.set("Content-Security-Policy",
                 "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; "
                 "connect-src 'self' ws:; frame-ancestors 'none'");
    response.keep_alive(request.keep_alive());
    response.prepare_payload();
    if (request.method() == http::verb::head) response.body().clear();  // the length stays that of a GET
  }

  // A rebound DNS name reaches us with that name as Host; addresses and this machine's own names cannot be rebound.
  bool host_allowed(const Request& request) const {
    const auto field = request[http::field::host];
    const std::string host = host_of({field.data(), field.size()});
    if (is_address(host) || beast::iequals(host, "localhost") || beast::iequals(host, settings.host)) return true;
    error_code error;
    const std::string own = asio::ip::host_name(error);
    return !error && !own.empty() && beast::iequals(host, own);
  }

  // Browsers name the page that opens a WebSocket; programs that are no browsers name none.
  static bool same_origin(const Request& request) {
    const auto field = request[http::field::origin];
    if (field.empty()) return true;
    std::string_view origin(field.data(), field.size());
    const size_t scheme = origin.find("://");
    if (scheme == std::string_view::npos) return false;
    origin.remove_prefix(scheme + 3);
    const auto host = request[http::field::host];
    return beast::iequals({origin.data(), origin.size()}, host);
  }

  // --- WebSocket ---

  awaitable<void> serve_client(beast::tcp_stream stream, const Request& request) {
    auto client = std::make_shared<Client>(std::move(stream));
    auto& socket = client->socket;
    socket.set_option(websocket::stream_base::timeout{kRequestTimeout, 30s, true});
    socket.read_message_max(settings.max_message);
    error_code error;
    co_await socket.async_accept(request, redirect_error(use_awaitable, error));
    if (error || stopping) co_return;

    clients.insert(client);
    client->send_text(scene);
    client->send_text(shown_status);
    client->send_frame(shown_frame);
    asio::co_spawn(network, write_to(client), asio::detached);

    beast::flat_buffer buffer;
    for (;;) {
      co_await socket.async_read(buffer, redirect_error(use_awaitable, error));
      if (error) break;
      receive(*client, socket.got_text(), beast::buffers_to_string(buffer.data()));
      buffer.consume(buffer.size());
    }
    client->reading = false;
    client->close();
    forget(client);
  }

  awaitable<void> write_to(std::shared_ptr<Client> client) {
    auto& socket = client->socket;
    error_code error;
    while (!error && !client->closing && !client->overflowed) {
      if (!client->texts.empty()) {
        const Text text = std::move(client->texts.front());
        client->texts.pop_front();
        socket.text(true);
        co_await socket.async_write(asio::buffer(*text), redirect_error(use_awaitable, error));
      } else if (client->frame) {
        const Text pose = std::exchange(client->frame, nullptr);
        socket.binary(true);
        co_await socket.async_write(asio::buffer(*pose), redirect_error(use_awaitable, error));
      } else {
        error_code woken;
        co_await client->wake.async_wait(redirect_error(use_awaitable, woken));
      }
    }
    if (!error && client->closing && client->reading)
      co_await socket.async_close(websocket::close_code::going_away, redirect_error(use_awaitable, error));
    forget(client);
  }

  void forget(const std::shared_ptr<Client>& client) {
    clients.erase(client);
    if (stopping && clients.empty()) network.stop();
  }

  void receive(Client& client, bool is_text, const std::string& message) {
    try {
      if (!is_text) fail("messages must be text");
      const ClientMessage parsed = parse_client_message(message);
      if (const auto* ping = std::get_if<Ping>(&parsed)) {
        client.send_text(std::make_shared<const std::string>(pong_message(ping->t)));
        return;
      }
      if (const auto* clip = std::get_if<CommandClip>(&parsed); clip && session.policy().latent_index(clip->clip) < 0)
        fail("`{}`: the policy knows no clip of that name", clip->clip);
      if (const auto* machine = std::get_if<CommandMachine>(&parsed);
          machine && session.machine_index(machine->machine) < 0)
        fail("`{}`: there is no state machine of that name", machine->machine);
      const std::lock_guard lock(command_mutex);
      if (commands.size() >= kMaxPendingCommands) fail("too many commands at once");
      commands.push_back(parsed);
      command_arrived.notify_one();
    } catch (const Error& e) {
      client.send_text(std::make_shared<const std::string>(error_message(e.what())));
    }
  }

  // --- simulation thread ---

  void simulate(const std::stop_token& stop_token) {
    const auto step = std::chrono::duration_cast<Clock::duration>(
        std::chrono::duration<double>(1.0 / session.settings().physics.control_rate));
    auto due = Clock::now() + step;
    std::deque<ClientMessage> arrived;
    while (!stop_token.stop_requested()) {
      {
        std::unique_lock lock(command_mutex);
        command_arrived.wait_until(lock, stop_token, due, [&] { return !commands.empty(); });
        arrived.swap(commands);
      }
      bool changed = !arrived.empty();
      for (const ClientMessage& command : arrived) apply_message(command, session);
      arrived.clear();

      // fixed steps: as many as the clock has passed, but no endless catching up
      if (Clock::now() - due > kMaxLateSteps * step) due = Clock::now();
      for (; Clock::now() >= due && !stop_token.stop_requested(); due += step) changed |= session.advance();
      if (changed) publish();
    }
  }

  // Leaves the newest pose and status for the network thread.
  void publish() {
    auto new_frame = std::make_shared<const std::string>(encode_frame(session));
    auto new_status = std::make_shared<const std::string>(status_message(session));
    const std::lock_guard lock(newest_mutex);
    newest_frame = std::move(new_frame);
    newest_status = std::move(new_status);
    if (!std::exchange(delivery_posted, true)) asio::post(network, [this] { deliver(); });
  }

  void deliver() {
    Text new_status;
    {
      const std::lock_guard lock(newest_mutex);
      shown_frame = newest_frame;
      new_status = newest_status;
      delivery_posted = false;
    }
    const bool status_changed = !shown_status || *shown_status != *new_status;
    if (status_changed) shown_status = new_status;
    // a client that overflows is not removed here but by its own coroutines, later
    for (const auto& client : clients) {
      if (status_changed) client->send_text(shown_status);
      client->send_frame(shown_frame);
    }
  }

  // --- running ---

  void run() {
    if (settings.handle_signals) {
      signals.add(SIGINT);
      signals.add(SIGTERM);
      signals.async_wait([this](const error_code& error, int) {
        if (!error) begin_stop();
      });
    }
    asio::steady_timer end(network);
    if (settings.seconds > 0.0) {
      end.expires_after(std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(settings.seconds)));
      end.async_wait([this](const error_code& error) {
        if (!error) begin_stop();
      });
    }
    asio::co_spawn(network, accept_connections(), asio::detached);

    std::exception_ptr failure;
    std::jthread simulation([&](const std::stop_token& stop_token) {
      try {
        simulate(stop_token);
      } catch (...) {
        failure = std::current_exception();
        asio::post(network, [this] { begin_stop(); });
      }
    });
    network.run();
    simulation.request_stop();
    simulation.join();
    if (failure) std::rethrow_exception(failure);
  }

  void begin_stop() {
    if (std::exchange(stopping, true)) return;
    error_code error;
    acceptor.close(error);
    if (clients.empty()) return network.stop();
    for (const auto& client : clients) client->close();
    goodbye.emplace(network, kCloseTimeout);
    goodbye->async_wait([this](const error_code&) { network.stop(); });
  }

  Session& session;
  const ServerSettings settings;
  int port = 0;

  // the network thread's own
  std::set<std::shared_ptr<Client>> clients;
  int connections = 0;
  bool stopping = false;
  Text scene, shown_status, shown_frame;

  // between the threads
  std::mutex command_mutex;
  std::condition_variable_any command_arrived;
  std::deque<ClientMessage> commands;
  std::mutex newest_mutex;
  Text newest_frame, newest_status;
  bool delivery_posted = false;

  // after all that suspended coroutines refer to: destroyed before it
  asio::io_context network{1};
  tcp::acceptor acceptor;
  asio::signal_set signals;
  std::optional<asio::steady_timer> goodbye;
};

Server::Server(Session& session, const ServerSettings& settings) : impl_(std::make_unique<Impl>(session, settings)) {}

Server::~Server() = default;

int Server::port() const { return impl_->port; }

std::string Server::url() const {
  const std::string& host = impl_->settings.host;
  // what stands for every address is none to connect to
  const bool everywhere = host == "0.0.0.0" || host == "::";
  const std::string shown = everywhere ? "127.0.0.1" : host.find(':') != std::string::npos ? "[" + host + "]" : host;
  return fmt::format("http://{}:{}/", shown, impl_->port);
}

void Server::run() { impl_->run(); }

void Server::stop() {
  asio::post(impl_->network, [impl = impl_.get()] { impl->begin_stop(); });
}

}  // namespace calm
