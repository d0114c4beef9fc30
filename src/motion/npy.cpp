#include "motion/npy.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstring>
#include <map>
#include <optional>
#include <variant>

#include "base/error.h"
#include "base/file.h"

namespace calm {

namespace {

static_assert(std::endian::native == std::endian::little, "arrays are copied as they lie in the file");

constexpr size_t kMaxFileBytes = size_t{256} << 20;
constexpr size_t kMaxStack = 4096;         // files of this kind need about 30
constexpr size_t kMaxNodes = 1 << 18;      // values of one pickle; files of this kind need about 400
constexpr float kOffsetTolerance = 0.02f;  // m

// ---- pickle ----

struct None {};
struct Mark {};
struct Global {
  std::string name;
};
struct Tuple {
  std::vector<int> items;
};
struct List {
  std::vector<int> items;
};
struct Dict {
  std::vector<std::pair<int, int>> items;
};
struct DType {
  char kind = 0;  // f, i, u, b, O
  size_t size = 0;
};
struct Array {
  std::vector<size_t> shape;
  DType type;
  std::string_view bytes;  // of numbers
  int objects = -1;        // of objects: the list
  bool built = false;
};
// Bytes and texts are views into the file.
struct Bytes {
  std::string_view view;
};
struct Text {
  std::string_view view;
};

// Values refer to each other by their index, so that a file can neither make them leak nor nest destructors.
using Value = std::variant<None, Mark, bool, int64_t, double, Text, Bytes, Global, Tuple, List, Dict, DType, Array>;

// Names for messages, of the opcodes that are refused.
const char* refused_opcode_name(unsigned char op) {
  static const std::map<unsigned char, const char*> names = {{'0', "POP"},
                                                             {'1', "POP_MARK"},
                                                             {'2', "DUP"},
                                                             {'F', "FLOAT"},
                                                             {'I', "INT"},
                                                             {'L', "LONG"},
                                                             {'P', "PERSID"},
                                                             {'Q', "BINPERSID"},
                                                             {'S', "STRING"},
                                                             {'T', "BINSTRING"},
                                                             {'U', "SHORT_BINSTRING"},
                                                             {'V', "UNICODE"},
                                                             {'d', "DICT"},
                                                             {'g', "GET"},
                                                             {'i', "INST"},
                                                             {'j', "LONG_BINGET"},
                                                             {'l', "LIST"},
                                                             {'o', "OBJ"},
                                                             {'p', "PUT"},
                                                             {'r', "LONG_BINPUT"},
                                                             {0x81, "NEWOBJ"},
                                                             {0x82, "EXT1"},
                                                             {0x83, "EXT2"},
                                                             {0x84, "EXT4"},
                                                             {0x8a, "LONG1"},
                                                             {0x8b, "LONG4"},
                                                             {0x8c, "SHORT_BINUNICODE"},
                                                             {0x8d, "BINUNICODE8"},
                                                             {0x8e, "BINBYTES8"},
                                                             {0x8f, "EMPTY_SET"},
                                                             {0x90, "ADDITEMS"},
                                                             {0x91, "FROZENSET"},
                                                             {0x92, "NEWOBJ_EX"},
                                                             {0x93, "STACK_GLOBAL"},
                                                             {0x94, "MEMOIZE"},
                                                             {0x95, "FRAME"},
                                                             {0x96, "BYTEARRAY8"},
                                                             {0x97, "NEXT_BUFFER"},
                                                             {0x98, "READONLY_BUFFER"}};
  const auto found = names.find(op);
  return found == names.end() ? "unknown" : found->second;
}

class Unpickler {
 public:
  // start: offset of the pickle in the file, for messages.
  Unpickler(std::string_view bytes, size_t start, const std::string& file) : bytes_(bytes), at_(start), file_(file) {}

  // Runs the pickle; the index of its result.
  int run() {
    while (true) {
      op_at_ = at_;
      const auto op = static_cast<unsigned char>(take(1)[0]);
      if (op == '.') return pop();
      step(op);
    }
  }

  const Value& value(int index) const { return values_[index]; }

  template <class T>
  const T* as(int index) const {
    return index < 0 ? nullptr : std::get_if<T>(&values_[index]);
  }

 private:
  template <typename... Args>
  [[noreturn]] void refuse(fmt::format_string<Args...> format, Args&&... args) const {
    fail("{}: at byte {}: {}; this is not a poselib motion clip, or it is damaged", file_, op_at_,
         fmt::format(format, std::forward<Args>(args)...));
  }

  std::string_view take(size_t n) {
    if (n > bytes_.size() - at_) refuse("the file ends where {} more bytes are needed", n - (bytes_.size() - at_));
    const auto taken = bytes_.substr(at_, n);
    at_ += n;
    return taken;
  }

  template <class T>
  T take_number() {
    T number;
    std::memcpy(&number, take(sizeof(T)).data(), sizeof(T));
    return number;
  }

  std::string take_line() {
    const size_t end = bytes_.find('\n', at_);
    if (end == std::string_view::npos || end - at_ > 200) refuse("a global's name does not end");
    const std::string line(take(end - at_));
    take(1);
    return line;
  }

  int make(Value value) {
    if (values_.size() >= kMaxNodes) refuse("more than {} values", kMaxNodes);
    values_.push_back(std::move(value));
    return static_cast<int>(values_.size()) - 1;
  }
  void push(Value value) { push_index(make(std::move(value))); }
  void push_index(int index) {
    if (stack_.size() >= kMaxStack) refuse("stack deeper than {}", kMaxStack);
    stack_.push_back(index);
  }
  int pop() {
    if (stack_.empty() || as<Mark>(stack_.back())) refuse("the stack is empty where a value is needed");
    const int top = stack_.back();
    stack_.pop_back();
    return top;
  }
  int top() {
    const int index = pop();
    stack_.push_back(index);
    return index;
  }
  // All values above the last mark, in order; takes the mark off.
  std::vector<int> pop_to_mark() {
    size_t begin = stack_.size();
    while (begin > 0 && !as<Mark>(stack_[begin - 1])) --begin;
    if (begin == 0) refuse("no mark on the stack");
    std::vector<int> items(stack_.begin() + static_cast<std::ptrdiff_t>(begin), stack_.end());
    stack_.resize(begin - 1);
    return items;
  }

  void push_tuple(int n) {
    Tuple tuple;
    for (int i = 0; i < n; ++i) tuple.items.insert(tuple.items.begin(), pop());
    push(std::move(tuple));
  }

  // a value that is copied into many lists could grow without bound: what all lists hold is counted too
  void count_items(size_t n) {
    items_ += n;
    if (items_ > kMaxNodes) refuse("more than {} list and dictionary entries", kMaxNodes);
  }

  void append(const std::vector<int>& items) {
    count_items(items.size());
    auto* list = std::get_if<List>(&values_[top()]);
    if (!list) refuse("APPEND to something that is not a list");
    list->items.insert(list->items.end(), items.begin(), items.end());
  }
  void set_items(const std::vector<int>& items) {
    count_items(items.size());
    auto* dict = std::get_if<Dict>(&values_[top()]);
    if (!dict || items.size() % 2 != 0) refuse("SETITEM on something that is not a dictionary");
    for (size_t i = 0; i < items.size(); i += 2) dict->items.emplace_back(items[i], items[i + 1]);
  }

  void step(unsigned char op) {
    switch (op) {
      case 0x80: {  // PROTO
        const int protocol = static_cast<unsigned char>(take(1)[0]);
        if (protocol < 2 || protocol > 3) refuse("pickle protocol {}, where 2 and 3 are read", protocol);
        return;
      }
      case 'c': {  // GLOBAL
        std::string module = take_line();
        return push_global(module + " " + take_line());
      }
      case 'q':  // BINPUT
        memo_[take_number<uint8_t>()] = top();
        return;
      case 'h': {  // BINGET
        const auto& kept = memo_[take_number<uint8_t>()];
        if (!kept) refuse("BINGET of a value that was not kept");
        return push_index(*kept);
      }
      case '(':
        return push(Mark{});
      case ')':
        return push(Tuple{});
      case ']':
        return push(List{});
      case '}':
        return push(Dict{});
      case 't': {
        auto items = pop_to_mark();
        count_items(items.size());
        return push(Tuple{std::move(items)});
      }
      case 0x85:
      case 0x86:
      case 0x87:
        return push_tuple(op - 0x84);
      case 'a': {
        const int item = pop();
        return append({item});
      }
      case 'e':
        return append(pop_to_mark());
      case 's': {
        const int item = pop(), key = pop();
        return set_items({key, item});
      }
      case 'u':
        return set_items(pop_to_mark());
      case 'R':
        return reduce();
      case 'b':
        return build();
      case 'N':
        return push(None{});
      case 0x88:
        return push(true);
      case 0x89:
        return push(false);
      case 'J':
        return push(int64_t{take_number<int32_t>()});
      case 'K':
        return push(int64_t{take_number<uint8_t>()});
      case 'M':
        return push(int64_t{take_number<uint16_t>()});
      case 'G':  // the one number that lies with its highest byte first
        return push(std::bit_cast<double>(__builtin_bswap64(take_number<uint64_t>())));
      case 'X':
        return push(Text{take(take_number<uint32_t>())});
      case 'C':
        return push(Bytes{take(take_number<uint8_t>())});
      case 'B':
        return push(Bytes{take(take_number<uint32_t>())});
      default:
        refuse("pickle opcode 0x{:02x} ({}) is not one that motion clips use", op, refused_opcode_name(op));
    }
  }

  void push_global(std::string name) {
    static const char* const known[] = {"numpy.core.multiarray _reconstruct", "numpy ndarray", "numpy dtype",
                                        "numpy.core.multiarray scalar", "collections OrderedDict"};
    for (const char* k : known)
      if (name == k) return push(Global{std::move(name)});
    for (char& c : name)
      if (c < ' ' || c > '~') c = '?';
    refuse("pickle global `{}` is not one that motion clips use", name);
  }

  // The few calls a clip file makes.
  void reduce() {
    const int arguments_index = pop();
    const int callee_index = pop();
    const auto* arguments = as<Tuple>(arguments_index);
    const auto* callee = as<Global>(callee_index);
    if (!arguments || !callee) refuse("REDUCE of something that cannot be called");
    const auto argument = [&](size_t i) { return i < arguments->items.size() ? arguments->items[i] : -1; };
    if (callee->name == "collections OrderedDict") {
      if (!arguments->items.empty()) refuse("OrderedDict with arguments");
      push(Dict{});
    } else if (callee->name == "numpy dtype") {
      const auto* text = as<Text>(argument(0));
      if (!text) refuse("dtype without a name");
      push(parse_dtype(text->view));
    } else if (callee->name == "numpy.core.multiarray _reconstruct") {
      const auto* type = as<Global>(argument(0));
      if (!type || type->name != "numpy ndarray") refuse("_reconstruct of something that is not an ndarray");
      push(Array{});
    } else if (callee->name == "numpy.core.multiarray scalar") {
      const auto* type = as<DType>(argument(0));
      const auto* data = as<Bytes>(argument(1));
      if (!type || !data || type->kind == 'O' || data->view.size() != type->size) refuse("malformed scalar");
      push(element(*type, data->view.data()));
    } else {
      refuse("`{}` cannot be called", callee->name);
    }
  }

  DType parse_dtype(std::string_view name) const {
    static const std::map<std::string_view, DType> known = {
        {"f4", {'f', 4}}, {"f8", {'f', 8}}, {"i1", {'i', 1}}, {"i2", {'i', 2}}, {"i4", {'i', 4}}, {"i8", {'i', 8}},
        {"u1", {'u', 1}}, {"u2", {'u', 2}}, {"u4", {'u', 4}}, {"b1", {'b', 1}}, {"O8", {'O', 8}}};
    const auto found = known.find(name);
    if (found == known.end()) refuse("element type `{}` is not one that is read", printable(name));
    return found->second;
  }

  // The state of a dtype (its byte order) or of an array.
  void build() {
    const int state_index = pop();
    const int target = top();
    if (const auto* dict = as<Dict>(state_index); dict && dict->items.empty()) return;
    const auto* state = as<Tuple>(state_index);
    if (!state) refuse("BUILD without a state tuple");
    const auto item = [&](size_t i) { return i < state->items.size() ? state->items[i] : -1; };
    if (as<DType>(target)) {
      const auto* order = as<Text>(item(1));
      if (!order) refuse("dtype without a byte order");
      if (order->view == ">") refuse("big-endian numbers; save the clip on a little-endian machine");
      return;
    }
    if (!as<Array>(target)) refuse("BUILD of something that is neither a dtype nor an array");
    const auto* shape = as<Tuple>(item(1));
    const auto* type = as<DType>(item(2));
    const auto* fortran = as<bool>(item(3));
    if (!shape || !type || !fortran) refuse("malformed array");
    if (*fortran) refuse("array in column order, which is not read");
    Array array;
    array.type = *type;
    array.built = true;
    size_t count = 1;
    for (const int i : shape->items) {
      const auto* n = as<int64_t>(i);
      if (!n || *n < 0 || shape->items.size() > 8) refuse("malformed array shape");
      if (*n > 0 && count > kMaxFileBytes / static_cast<size_t>(*n)) refuse("array larger than any clip file");
      count *= static_cast<size_t>(*n);
      array.shape.push_back(static_cast<size_t>(*n));
    }
    if (type->kind == 'O') {
      const auto* list = as<List>(item(4));
      if (!list || list->items.size() != count) refuse("an object array's list does not have {} items", count);
      array.objects = item(4);
    } else {
      const auto* data = as<Bytes>(item(4));
      if (!data || data->view.size() != count * type->size)
        refuse("an array of {} numbers needs {} bytes, the file has {}", count, count * type->size,
               data ? data->view.size() : 0);
      array.bytes = data->view;
    }
    values_[target] = std::move(array);
  }

 public:
  static std::string printable(std::string_view text) {
    std::string out(text.substr(0, 60));
    for (char& c : out)
      if (c < ' ' || c > '~') c = '?';
    return out;
  }

  static double element(const DType& type, const char* data) {
    const auto read = [&]<class T>(T number) {
      std::memcpy(&number, data, sizeof(T));
      return static_cast<double>(number);
    };
    switch (type.kind) {
      case 'f':
        return type.size == 4 ? read(float{}) : read(double{});
      case 'i':
        return type.size == 1   ? read(int8_t{})
               : type.size == 2 ? read(int16_t{})
               : type.size == 4 ? read(int32_t{})
                                : read(int64_t{});
      default:
        return type.size == 1 ? read(uint8_t{}) : type.size == 2 ? read(uint16_t{}) : read(uint32_t{});
    }
  }

 private:
  std::string_view bytes_;
  size_t at_, op_at_ = 0;
  const std::string& file_;
  std::vector<Value> values_;
  std::vector<int> stack_;
  std::array<std::optional<int>, 256> memo_;
  size_t items_ = 0;
};

// ---- the clip in it ----

struct NpyArray {
  std::vector<size_t> shape;
  std::vector<double> values;  // row-major
};

class ClipReader {
 public:
  ClipReader(const Unpickler& pickle, const std::string& file) : pickle_(pickle), file_(file) {}

  // Value of `key`; Error if the dictionary lacks it.
  int find(int dict_index, std::string_view key) const {
    const auto* dict = pickle_.as<Dict>(dict_index);
    if (!dict) fail("{}: where `{}` should be there is no dictionary; this is not a poselib motion clip", file_, key);
    for (const auto& [k, v] : dict->items)
      if (const auto* text = pickle_.as<Text>(k); text && text->view == key) return v;
    fail("{}: has no `{}`; this is not a poselib motion clip", file_, key);
  }

  // Poselib wraps arrays as {arr: array, context: ...}. dims: shape wanted, 0 for any size.
  NpyArray array(int dict, std::string_view key, const std::vector<size_t>& dims) const {
    const auto* source = pickle_.as<Array>(find(find(dict, key), "arr"));
    if (!source || !source->built || source->type.kind == 'O') fail("{}: `{}` is not an array of numbers", file_, key);
    bool fits = source->shape.size() == dims.size();
    for (size_t i = 0; fits && i < dims.size(); ++i) fits = dims[i] == 0 || dims[i] == source->shape[i];
    if (!fits)
      fail("{}: `{}` has shape ({}) where ({}) is needed (0: any)", file_, key, fmt::join(source->shape, " x "),
           fmt::join(dims, " x "));
    NpyArray out;
    out.shape = source->shape;
    out.values.resize(source->bytes.size() / source->type.size);
    for (size_t i = 0; i < out.values.size(); ++i) {
      out.values[i] = Unpickler::element(source->type, source->bytes.data() + i * source->type.size);
      if (!std::isfinite(out.values[i])) fail("{}: `{}` holds a number that is not finite", file_, key);
    }
    return out;
  }

  double number(int dict, std::string_view key) const {
    const int index = find(dict, key);
    if (const auto* v = pickle_.as<double>(index)) return *v;
    if (const auto* v = pickle_.as<int64_t>(index)) return static_cast<double>(*v);
    const auto* v = pickle_.as<Array>(index);
    if (v && v->built && v->type.kind != 'O' && v->bytes.size() == v->type.size)
      return Unpickler::element(v->type, v->bytes.data());
    fail("{}: `{}` is not a number", file_, key);
  }

  std::vector<std::string> texts(int dict, std::string_view key) const {
    const auto* list = pickle_.as<List>(find(dict, key));
    if (!list) fail("{}: `{}` is not a list", file_, key);
    std::vector<std::string> out;
    for (const int i : list->items) {
      const auto* text = pickle_.as<Text>(i);
      if (!text) fail("{}: `{}` holds something that is not a text", file_, key);
      out.push_back(Unpickler::printable(text->view));
    }
    return out;
  }

 private:
  const Unpickler& pickle_;
  const std::string& file_;
};

// Offset of the pickle behind a NumPy 1.0 header of one object.
size_t pickle_start(std::string_view bytes, const std::string& file) {
  if (!bytes.starts_with("\x93NUMPY")) fail("{}: is not a NumPy file", file);
  if (bytes.size() < 10) fail("{}: ends within its header", file);
  if (bytes[6] != 1) fail("{}: NumPy format {}, where 1 is read", file, static_cast<int>(bytes[6]));
  const size_t length = static_cast<unsigned char>(bytes[8]) + 256u * static_cast<unsigned char>(bytes[9]);
  if (length > bytes.size() - 10) fail("{}: ends within its header", file);
  const auto header = bytes.substr(10, length);
  const auto has = [&](std::string_view text) { return header.find(text) != std::string_view::npos; };
  if (!has("'descr': '|O'") || !has("'shape': ()"))
    fail("{}: holds `{}` where a motion clip has one pickled object; this is not a poselib motion clip", file,
         Unpickler::printable(header));
  return 10 + length;
}

// A file's node for each of the character's bodies, -1 where it has none. Error where they do not fit together.
std::vector<int> match_bodies(const Character& character, const std::vector<std::string>& nodes,
                              const NpyArray& parents, const NpyArray& offsets, const std::string& file,
                              std::vector<std::string>& warnings) {
  const auto node_index = [&](const std::string& name) {
    const auto found = std::ranges::find(nodes, name);
    return found == nodes.end() ? -1 : static_cast<int>(found - nodes.begin());
  };
  const auto parent_name = [&](int node) -> std::string {
    const double parent = parents.values[node];
    return parent >= 0 && parent < static_cast<double>(nodes.size()) ? nodes[static_cast<size_t>(parent)] : "";
  };

  std::vector<int> node_of(character.bodies.size());
  std::vector<std::string> missing, still, dropped;
  for (int b = 0; b < character.num_bodies(); ++b) {
    const Body& body = character.bodies[b];
    const int node = node_of[b] = node_index(body.name);
    if (node < 0) {
      (body.num_joints == 0 && b > 0 ? still : missing).push_back(body.name);
      continue;
    }
    const std::string parent = b == 0 ? "" : character.bodies[body.parent].name;
    if (parent_name(node) != parent)
      fail("{}: `{}` hangs from `{}`, on character {} from `{}`; retarget the clip", file, body.name, parent_name(node),
           character.name, parent);
    const Vec3 offset(static_cast<float>(offsets.values[3 * node]), static_cast<float>(offsets.values[3 * node + 1]),
                      static_cast<float>(offsets.values[3 * node + 2]));
    if (b > 0 && (offset - body.pos).norm() > kOffsetTolerance)
      fail(
          "{}: `{}` lies at ({:.3f} {:.3f} {:.3f}) m from its parent, on character {} at ({:.3f} {:.3f} {:.3f}); "
          "retarget the clip",
          file, body.name, offset.x(), offset.y(), offset.z(), character.name, body.pos.x(), body.pos.y(),
          body.pos.z());
  }
  if (!missing.empty())
    fail("{}: has no motion for {} of character {}; its bodies are {}", file, fmt::join(missing, ", "), character.name,
         fmt::join(nodes, ", "));
  for (const std::string& node : nodes)
    if (character.body_index(node) < 0) dropped.push_back(node);
  if (!still.empty())
    warnings.push_back(fmt::format("{}: has no {}; kept fixed to the parent", file, fmt::join(still, ", ")));
  if (!dropped.empty())
    warnings.push_back(
        fmt::format("{}: character {} has no {}; dropped", file, character.name, fmt::join(dropped, ", ")));
  return node_of;
}

}  // namespace

Clip parse_npy(const Character& character, std::string_view bytes, const std::string& name,
               std::vector<std::string>* warnings) {
  std::vector<std::string> found_warnings;
  Unpickler pickle(bytes, pickle_start(bytes, name), name);
  const int result = pickle.run();
  const auto* outer = pickle.as<Array>(result);
  const auto* objects = outer && outer->built ? pickle.as<List>(outer->objects) : nullptr;
  if (!objects || objects->items.size() != 1) fail("{}: does not hold one object; not a poselib motion clip", name);
  const int content = objects->items[0];
  const ClipReader reader(pickle, name);

  // the skeleton
  const int tree = reader.find(content, "skeleton_tree");
  const std::vector<std::string> nodes = reader.texts(tree, "node_names");
  const NpyArray parents = reader.array(tree, "parent_indices", {nodes.size()});
  const NpyArray offsets = reader.array(tree, "local_translation", {nodes.size(), 3});
  const std::vector<int> node_of = match_bodies(character, nodes, parents, offsets, name, found_warnings);

  // the motion
  const NpyArray rotation = reader.array(content, "rotation", {0, nodes.size(), 4});
  const size_t frames = rotation.shape[0];
  if (frames < 1) fail("{}: has no frames", name);
  const NpyArray translation = reader.array(content, "root_translation", {frames, 3});
  const NpyArray velocity = reader.array(content, "global_velocity", {frames, nodes.size(), 3});
  const NpyArray ang_velocity = reader.array(content, "global_angular_velocity", {frames, nodes.size(), 3});
  const auto* is_local = pickle.as<bool>(reader.find(content, "is_local"));
  if (!is_local || !*is_local) fail("{}: its rotations are not local ones; save it with local rotations", name);
  const double fps = reader.number(content, "fps");
  if (!(fps >= 1.0 && fps <= 1000.0)) fail("{}: {} frames per second; 1 to 1000 are accepted", name, fps);

  Clip clip;
  clip.name = std::filesystem::path(name).stem().string();
  clip.source = name;
  clip.fps = static_cast<float>(fps);
  clip.num_frames = static_cast<int>(frames);
  const auto count = character.bodies.size();
  clip.root_pos.resize(3 * frames);
  clip.root_vel.resize(3 * frames);
  clip.root_ang_vel.resize(3 * frames);
  clip.body_rot.resize(4 * frames * count);
  std::vector<float> lost(count, 0.0f);  // largest rotation that a body's joints cannot take, rad
  for (size_t f = 0; f < frames; ++f) {
    for (size_t axis = 0; axis < 3; ++axis) {
      const size_t root = 3 * (f * nodes.size() + static_cast<size_t>(node_of[0])) + axis;
      clip.root_pos[3 * f + axis] = static_cast<float>(translation.values[3 * f + axis]);
      clip.root_vel[3 * f + axis] = static_cast<float>(velocity.values[root]);
      clip.root_ang_vel[3 * f + axis] = static_cast<float>(ang_velocity.values[root]);
    }
    for (size_t b = 0; b < count; ++b) {
      const Body& body = character.bodies[b];
      Quat joint_rot = Quat::Identity();
      if (node_of[b] >= 0) {
        const double* q = rotation.values.data() + 4 * (f * nodes.size() + static_cast<size_t>(node_of[b]));
        const double norm = std::sqrt(q[0] * q[0] + q[1] * q[1] + q[2] * q[2] + q[3] * q[3]);
        if (!(norm > 0.9 && norm < 1.1))
          fail("{}: frame {}, `{}`: a quaternion of length {:.3g} is no rotation", name, f, body.name, norm);
        joint_rot.coeffs() << static_cast<float>(q[0] / norm), static_cast<float>(q[1] / norm),
            static_cast<float>(q[2] / norm), static_cast<float>(q[3] / norm);
      }
      if (b > 0 && body.num_joints == 0) {
        lost[b] = std::max(lost[b], exp_map_from_quat(joint_rot).norm());
        joint_rot = Quat::Identity();
      } else if (b > 0 && body.num_joints == 1 && character.joints[body.first_joint].kind == JointKind::kHinge) {
        const Vec3& axis = character.joints[body.first_joint].axis;
        const Quat twist(Eigen::AngleAxisf(twist_angle(joint_rot, axis), axis));
        lost[b] = std::max(lost[b], exp_map_from_quat(twist.conjugate() * joint_rot).norm());
      }
      QuatMap(clip.body_rot.data() + 4 * (f * count + b)) = b == 0 ? joint_rot : body.rot * joint_rot;
    }
  }
  for (size_t b = 0; b < count; ++b)
    if (lost[b] > 0.02f)
      found_warnings.push_back(fmt::format("{}: `{}` turns by up to {:.0f} degrees in ways that character {} cannot",
                                           name, character.bodies[b].name, lost[b] * 180.0f / kPi, character.name));
  compute_dof_velocities(character, clip);
  if (warnings) warnings->insert(warnings->end(), found_warnings.begin(), found_warnings.end());
  return clip;
}

Clip import_npy(const Character& character, const std::filesystem::path& path, std::vector<std::string>* warnings) {
  return parse_npy(character, read_file(path, kMaxFileBytes), path.string(), warnings);
}

}  // namespace calm
