#include "play/server.h"

#include <gmock/gmock.h>

#include <boost/asio.hpp>
#include <boost/beast.hpp>
#include <fstream>
#include <nlohmann/json.hpp>
#include <thread>

#include "base/error.h"
#include "play/messages.h"
#include "play/pages.h"
#include "play/play_fixture.h"

namespace calm {
namespace {

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace http = beast::http;
namespace websocket = beast::websocket;
using asio::ip::tcp;
using nlohmann::json;
using testing::HasSubstr;
using namespace std::chrono_literals;

class ServerTest : public PlayTest {
 protected:
  ServerTest() {
    write_file_atomic(web() / "index.html", "<!doctype html><title>page</title>");
    write_file_atomic(web() / "assets" / "app-1234.js", "let x = 1;");
    write_file_atomic(folder.path() / "secret.txt", "secret");
    session = make_session();
  }
  ~ServerTest() override { stop(); }

  std::filesystem::path web() const { return folder.path() / "web"; }

  void start(ServerSettings settings = {}) {
    settings.port = 0;
    settings.web = web();
    server = std::make_unique<Server>(*session, settings);
    thread = std::jthread([this] { server->run(); });
  }
  void stop() {
    if (!server) return;
    server->stop();
    if (thread.joinable()) thread.join();
  }

  tcp::endpoint endpoint() const {
    return {asio::ip::address_v4::loopback(), static_cast<unsigned short>(server->port())};
  }

  // Sends a request as it is and returns the answer's status line, header and body.
  std::string raw(const std::string& request) {
    tcp::socket socket(context);
    socket.connect(endpoint());
    boost::system::error_code error;
    asio::write(socket, asio::buffer(request), error);
    socket.shutdown(tcp::socket::shutdown_send, error);
    std::string answer;
    asio::read(socket, asio::dynamic_buffer(answer), error);
    return answer;
  }
  std::string get(const std::string& target, const std::string& host = "127.0.0.1") {
    return raw("GET " + target + " HTTP/1.1\r\nHost: " + host + "\r\nConnection: close\r\n\r\n");
  }

  using Socket = websocket::stream<beast::tcp_stream>;
  Socket connect(const std::string& origin = "") {
    Socket socket(context);
    socket.next_layer().connect(endpoint());
    if (!origin.empty())
      socket.set_option(websocket::stream_base::decorator(
          [origin](websocket::request_type& request) { request.set(http::field::origin, origin); }));
    socket.handshake("127.0.0.1:" + std::to_string(server->port()), "/ws");
    return socket;
  }
  static void send(Socket& socket, const std::string& text) {
    socket.text(true);
    socket.write(asio::buffer(text));
  }
  // The next text message of a type; frames and other texts on the way are skipped.
  static json receive(Socket& socket, const std::string& type) {
    for (int i = 0; i < 1000; ++i) {
      beast::flat_buffer buffer;
      socket.read(buffer);
      if (!socket.got_text()) continue;
      json message = json::parse(beast::buffers_to_string(buffer.data()));
      if (message["type"] == type) return message;
    }
    return {};
  }
  static std::string receive_frame(Socket& socket) {
    for (;;) {
      beast::flat_buffer buffer;
      socket.read(buffer);
      if (socket.got_binary()) return beast::buffers_to_string(buffer.data());
    }
  }
  static uint32_t tick_of(const std::string& frame) {
    uint32_t tick;
    std::memcpy(&tick, frame.data() + 8, 4);
    return tick;
  }

  asio::io_context context;
  std::unique_ptr<Session> session;
  std::unique_ptr<Server> server;
  std::jthread thread;
};

TEST_F(ServerTest, ServesThePage) {
  start();
  EXPECT_EQ(server->url(), "http://127.0.0.1:" + std::to_string(server->port()) + "/");
  const std::string index = get("/");
  EXPECT_THAT(index, HasSubstr("HTTP/1.1 200"));
  EXPECT_THAT(index, HasSubstr("text/html"));
  EXPECT_THAT(index, HasSubstr("no-cache"));
  EXPECT_THAT(index, HasSubstr("<title>page</title>"));
  EXPECT_THAT(index, HasSubstr("Content-Security-Policy"));
  const std::string script = get("/assets/app-1234.js?v=2");
  EXPECT_THAT(script, HasSubstr("text/javascript"));
  EXPECT_THAT(script, HasSubstr("immutable"));
  EXPECT_THAT(script, HasSubstr("let x = 1;"));
}

TEST_F(ServerTest, ExplainsAPageThatIsNotBuilt) {
  std::filesystem::remove(web() / "index.html");
  start();
  EXPECT_THAT(get("/"), HasSubstr("npm"));
  std::filesystem::remove_all(web());
  EXPECT_THAT(get("/"), HasSubstr("npm"));
}

TEST_F(ServerTest, NothingOutsideTheFolderIsRead) {
  std::filesystem::create_symlink(folder.path() / "secret.txt", web() / "link.txt");
  start();
  for (const char* target : {"/../secret.txt", "/assets/../../secret.txt", "/%2e%2e/secret.txt", "/..%2fsecret.txt",
                             "//etc/passwd", "/%2fetc/passwd", "/link.txt", "/..\\secret.txt", "/%00", "/%zz", "/.."}) {
    const std::string answer = get(target);
    EXPECT_THAT(answer, testing::AnyOf(HasSubstr("HTTP/1.1 400"), HasSubstr("HTTP/1.1 404"))) << target;
    EXPECT_THAT(answer, testing::Not(HasSubstr("\r\n\r\nsecret"))) << target;
    EXPECT_THAT(answer, testing::Not(HasSubstr("root:"))) << target;
  }
}

TEST_F(ServerTest, RefusesWhatItDoesNotServe) {
  start();
  EXPECT_THAT(get("/nothing.js"), HasSubstr("HTTP/1.1 404"));
  EXPECT_THAT(get("/assets"), HasSubstr("HTTP/1.1 404"));
  EXPECT_THAT(raw("POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n"), HasSubstr("HTTP/1.1 405"));
  EXPECT_THAT(raw("no http at all\r\n\r\n"), HasSubstr("HTTP/1.1 400"));
  const std::string head = raw("HEAD / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
  EXPECT_THAT(head, HasSubstr("HTTP/1.1 200"));
  EXPECT_THAT(head, testing::Not(HasSubstr("<title>")));
  const std::string big(100000, 'x');
  EXPECT_THAT(raw("GET /" + big + " HTTP/1.1\r\nHost: localhost\r\n\r\n"), testing::Not(HasSubstr("200 OK")));
}

TEST_F(ServerTest, RefusesForeignHostsAndOrigins) {
  start();
  EXPECT_THAT(get("/", "evil.example:8080"), HasSubstr("HTTP/1.1 403"));
  EXPECT_THAT(get("/", ""), HasSubstr("HTTP/1.1 403"));
  EXPECT_THAT(get("/", "localhost:8080"), HasSubstr("HTTP/1.1 200"));
  EXPECT_THAT(get("/", "[::1]:8080"), HasSubstr("HTTP/1.1 200"));
  EXPECT_THROW(connect("http://evil.example"), boost::system::system_error);
  EXPECT_THROW(connect("null"), boost::system::system_error);
  EXPECT_NO_THROW(connect("http://127.0.0.1:" + std::to_string(server->port())));
}

TEST_F(ServerTest, SendsSceneStatusThenFramesInRealTime) {
  start();
  Socket socket = connect();
  beast::flat_buffer buffer;
  socket.read(buffer);
  EXPECT_EQ(json::parse(beast::buffers_to_string(buffer.data()))["type"], "scene") << "the scene comes first";
  EXPECT_EQ(receive(socket, "status")["clip"], "stand");
  const uint32_t first = tick_of(receive_frame(socket));
  const auto begin = std::chrono::steady_clock::now();
  uint32_t last = first;
  while (std::chrono::steady_clock::now() - begin < 600ms) {
    const uint32_t tick = tick_of(receive_frame(socket));
    EXPECT_GT(tick, last);
    last = tick;
  }
  // 30 Hz; a busy machine may be late, but never early
  EXPECT_GE(last - first, 6u);
  EXPECT_LE(last - first, 25u);
}

TEST_F(ServerTest, CommandsReachTheSession) {
  start();
  Socket socket = connect();
  receive(socket, "status");
  send(socket, R"({"type":"pause","paused":true})");
  EXPECT_TRUE(receive(socket, "status")["paused"]);
  send(socket, R"({"type":"command","clip":")" + policy.latents[1].name + R"("})");
  EXPECT_EQ(receive(socket, "status")["clip"], policy.latents[1].name);
  send(socket, R"({"type":"reset"})");
  EXPECT_EQ(receive(socket, "status")["resets"], 1);
  const uint32_t before = tick_of(receive_frame(socket));
  send(socket, R"({"type":"step"})");
  uint32_t after = before;
  while (after == before) after = tick_of(receive_frame(socket));
  EXPECT_EQ(after, before + 1);
  send(socket, R"({"type":"ping","t":12.5})");
  EXPECT_EQ(receive(socket, "pong")["t"], 12.5);
  stop();
  EXPECT_EQ(session->clip(), 1);
}

TEST_F(ServerTest, MalformedMessagesAreAnsweredAndForgotten) {
  start();
  Socket socket = connect();
  for (const char* text : {"{", "[]", R"({"type":"command","clip":"moonwalk"})"}) {
    send(socket, text);
    EXPECT_FALSE(receive(socket, "error")["message"].get<std::string>().empty());
  }
  socket.binary(true);
  socket.write(asio::buffer(std::string("\0\1\2", 3)));
  EXPECT_THAT(receive(socket, "error")["message"].get<std::string>(), HasSubstr("text"));
  send(socket, R"({"type":"pause"})");
  EXPECT_TRUE(receive(socket, "status")["paused"]);
}

TEST_F(ServerTest, OversizedMessageClosesTheConnection) {
  start();
  Socket socket = connect();
  send(socket, std::string(5000, 'x'));
  boost::system::error_code error;
  for (int i = 0; i < 1000 && !error; ++i) {
    beast::flat_buffer buffer;
    socket.read(buffer, error);
  }
  EXPECT_TRUE(error);
  EXPECT_EQ(socket.reason().code, websocket::close_code::too_big);
}

TEST_F(ServerTest, SeveralClientsWatch) {
  start();
  Socket a = connect(), b = connect();
  const uint32_t first = tick_of(receive_frame(a));
  EXPECT_GE(tick_of(receive_frame(b)), first);
  b.next_layer().close();
  uint32_t last = first;
  while (last < first + 5) last = tick_of(receive_frame(a));
}

TEST_F(ServerTest, ClientThatTalksAndNeverReadsIsDisconnectedAndDisturbsNone) {
  start();
  Socket stuck = connect(), watching = connect();
  const uint32_t first = tick_of(receive_frame(watching));
  // each answer holds the name again: soon neither system takes more for the one who does not read
  const std::string unknown = R"({"type":"command","clip":")" + std::string(3900, 'x') + R"("})";
  boost::system::error_code error;
  for (int i = 0; i < 50000 && !error; ++i) stuck.write(asio::buffer(unknown), error);
  EXPECT_TRUE(error) << "still connected";
  uint32_t last = first;
  while (last < first + 5) last = tick_of(receive_frame(watching));
}

TEST_F(ServerTest, ClosesPolitelyWhenStopped) {
  start();
  Socket socket = connect();
  receive_frame(socket);
  server->stop();
  boost::system::error_code error;
  for (int i = 0; i < 1000 && !error; ++i) {
    beast::flat_buffer buffer;
    socket.read(buffer, error);
  }
  EXPECT_EQ(error, websocket::error::closed);
  thread.join();
  EXPECT_THROW(tcp::socket(context).connect(endpoint()), boost::system::system_error);
}

TEST_F(ServerTest, EndsByItselfAfterTheGivenTime) {
  start({.seconds = 0.4});
  thread.join();
  EXPECT_GE(session->statistics().ticks, 5);
  EXPECT_LE(session->statistics().ticks, 13);
}

TEST_F(ServerTest, NamesAPortThatIsTaken) {
  start();
  const int port = server->port();
  try {
    Server second(*session, {.port = port, .web = web()});
    FAIL() << "two servers on one port";
  } catch (const Error& e) {
    EXPECT_THAT(e.what(), HasSubstr(std::to_string(port)));
    EXPECT_THAT(e.what(), HasSubstr("--port"));
  }
  EXPECT_THROW(Server(*session, {.port = 70000}), Error);
  EXPECT_THROW(Server(*session, {.host = "no.such.host.invalid"}), Error);
}

TEST_F(ServerTest, ConnectionsAreBounded) {
  start({.max_connections = 4});
  std::vector<tcp::socket> sockets;
  for (int i = 0; i < 4; ++i) {
    sockets.emplace_back(context);
    sockets.back().connect(endpoint());
  }
  std::this_thread::sleep_for(100ms);
  EXPECT_EQ(get("/"), "") << "one more is closed without an answer";
  sockets.clear();
  std::string answer;
  for (int i = 0; i < 100 && answer.empty(); ++i) {
    std::this_thread::sleep_for(20ms);
    answer = get("/");
  }
  EXPECT_THAT(answer, HasSubstr("HTTP/1.1 200"));
}

}  // namespace
}  // namespace calm
