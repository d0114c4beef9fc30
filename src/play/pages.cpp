#include "play/pages.h"

#include <fmt/format.h>

#include <algorithm>
#include <optional>

#include "base/error.h"
#include "base/file.h"

namespace calm {

namespace {

constexpr size_t kMaxPageBytes = size_t{64} << 20;

struct ContentType {
  std::string_view extension, type;
};
constexpr ContentType kContentTypes[] = {
    {".html", "text/html; charset=utf-8"},
    {".js", "text/javascript; charset=utf-8"},
    {".css", "text/css; charset=utf-8"},
    {".json", "application/json"},
    {".map", "application/json"},
    {".svg", "image/svg+xml"},
    {".png", "image/png"},
    {".ico", "image/x-icon"},
    {".woff2", "font/woff2"},
    {".wasm", "application/wasm"},
    {".txt", "text/plain; charset=utf-8"},
};

constexpr std::string_view kNotBuilt = R"(<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>CALM</title>
<style>body{font:16px/1.6 system-ui,sans-serif;background:#101418;color:#dde3ea;max-width:40rem;margin:15vh auto;
padding:0 1.5rem}code{background:#1d242c;padding:.15em .4em;border-radius:4px}</style>
<h1>The simulation runs, its page is not built</h1>
<p>Build it with <code>npm --prefix web ci</code> and <code>npm --prefix web run build</code> in the repository, then
load this page again; or start with <code>./calm demo</code>, which does both.</p></html>
)";

int hex_digit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

// The target's path, decoded; nothing if it is not one that a browser would send for our files.
std::optional<std::filesystem::path> decode(std::string_view target) {
  target = target.substr(0, target.find_first_of("?#"));
  if (target.empty() || target.front() != '/') return std::nullopt;
  std::string path;
  for (size_t i = 1; i < target.size(); ++i) {
    char c = target[i];
    if (c == '%') {
      if (i + 2 >= target.size()) return std::nullopt;
      const int high = hex_digit(target[i + 1]), low = hex_digit(target[i + 2]);
      if (high < 0 || low < 0) return std::nullopt;
      c = static_cast<char>(16 * high + low);
      i += 2;
    }
    if (static_cast<unsigned char>(c) < 0x20 || c == '\\') return std::nullopt;
    path.push_back(c);
  }
  std::filesystem::path result(path);
  if (result.is_absolute()) return std::nullopt;
  for (const auto& part : result)
    if (part == "..") return std::nullopt;
  return result;
}

Page message(int status, std::string text) { return {status, "text/plain; charset=utf-8", "no-store", text + "\n"}; }

}  // namespace

Page find_page(const std::filesystem::path& root, std::string_view target) {
  const auto relative = decode(target);
  if (!relative) return message(400, "bad path");
  const bool is_index = relative->empty() || *relative == "index.html";
  if (is_index && !std::filesystem::is_regular_file(root / "index.html"))
    return {200, "text/html; charset=utf-8", "no-store", std::string(kNotBuilt)};

  // what a link inside the folder points to must lie inside it too
  std::error_code error;
  const auto base = std::filesystem::canonical(root, error);
  if (error) return message(404, "not found");
  const auto file = std::filesystem::canonical(base / (is_index ? "index.html" : *relative), error);
  if (error || !std::filesystem::is_regular_file(file, error)) return message(404, "not found");
  if (std::mismatch(base.begin(), base.end(), file.begin(), file.end()).first != base.end())
    return message(404, "not found");

  Page page;
  const auto extension = file.extension().string();
  const auto type = std::find_if(std::begin(kContentTypes), std::end(kContentTypes),
                                 [&](const ContentType& t) { return t.extension == extension; });
  page.type = type == std::end(kContentTypes) ? "application/octet-stream" : std::string(type->type);
  // the build puts a hash of the contents in the names under assets/
  page.cache =
      !relative->empty() && *relative->begin() == "assets" ? "public, max-age=31536000, immutable" : "no-cache";
  try {
    page.body = read_file(file, kMaxPageBytes);
  } catch (const Error&) {
    return message(404, "not found");
  }
  return page;
}

}  // namespace calm
