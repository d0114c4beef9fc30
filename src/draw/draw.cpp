// MuJoCo's renderer without a display. It wants a current OpenGL context when its own is made, and looks for one among
// the libraries of the process: OSMesa, linked here, is found, and draws into memory with no GPU.
// The world that is compiled holds only floor, sky and light. The character's shapes are put into the abstract scene
// directly at their world poses, so one model serves any character and any number of states.
#include "draw/draw.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>

#include "base/error.h"

#ifdef CALM_WITH_RENDER
#include <GL/osmesa.h>
#include <mujoco/mujoco.h>
#endif

namespace calm {

namespace {

constexpr int kMaxSide = 8192;
constexpr float kRadians = kPi / 180.0f;

void check_size(int width, int height) {
  if (width < 1 || height < 1 || width > kMaxSide || height > kMaxSide)
    fail("a picture of {} x {} pixels cannot be drawn; each side must be from 1 to {}", width, height, kMaxSide);
}

}  // namespace

#ifdef CALM_WITH_RENDER

namespace {

constexpr float kFovy = 24.0f, kFovx = 36.0f;  // degrees, at most; a long lens keeps sizes alike along a strip

// Half the vertical angle of view, tangent: what the narrower of the two limits leaves.
float half_view(float aspect) {
  return std::min(std::tan(0.5f * kFovy * kRadians), std::tan(0.5f * kFovx * kRadians) / aspect);
}

const char* const kWorld = R"(<mujoco model="picture">
  <visual>
    <global offwidth="1" offheight="1"/>
    <quality shadowsize="4096" offsamples="0" numslices="40" numstacks="20"/>
    <headlight ambient="0.46 0.46 0.49" diffuse="0.20 0.20 0.20" specular="0 0 0"/>
    <map znear="0.05" zfar="120" haze="0.35"/>
    <rgba haze="0.86 0.90 0.94 1"/>
  </visual>
  <asset>
    <texture type="skybox" builtin="gradient" rgb1="0.70 0.80 0.90" rgb2="0.97 0.97 0.97" width="256" height="1536"/>
    <texture name="floor" type="2d" builtin="checker" rgb1="0.86 0.87 0.87" rgb2="0.72 0.75 0.77"
             mark="edge" markrgb="0.62 0.66 0.69" width="512" height="512"/>
    <material name="floor" texture="floor" texrepeat="1 1" texuniform="true" specular="0" shininess="0"/>
  </asset>
  <worldbody>
    <light directional="true" pos="0 0 10" dir="-0.35 0.5 -1" ambient="0 0 0" diffuse="0.54 0.52 0.48"
           specular="0.12 0.12 0.12" castshadow="true"/>
    <geom name="floor" type="plane" size="0 0 1" material="floor"/>
  </worldbody>
</mujoco>
)";

mjModel* compile_world() {
  auto vfs = std::make_unique<mjVFS>();
  mj_defaultVFS(vfs.get());
  const std::string text = kWorld;
#if mjVERSION_HEADER >= 300
  mj_addBufferVFS(vfs.get(), "world.xml", text.data(), static_cast<int>(text.size()));
#else
  mj_makeEmptyFileVFS(vfs.get(), "world.xml", static_cast<int>(text.size()));
  std::copy(text.begin(), text.end(), static_cast<char*>(vfs->filedata[0]));
#endif
  std::array<char, 500> error{};
  mjModel* model = mj_loadXML("world.xml", vfs.get(), error.data(), static_cast<int>(error.size()));
  mj_deleteVFS(vfs.get());
  if (!model) fail("the world for drawing cannot be compiled: {}", error.data());
  return model;
}

int geom_type(ShapeKind kind) {
  switch (kind) {
    case ShapeKind::kSphere:
      return mjGEOM_SPHERE;
    case ShapeKind::kCapsule:
      return mjGEOM_CAPSULE;
    case ShapeKind::kBox:
      return mjGEOM_BOX;
    case ShapeKind::kCylinder:
      return mjGEOM_CYLINDER;
  }
  return mjGEOM_SPHERE;
}

// A ball that is seen: shapes are framed by the balls at their ends and corners.
struct Ball {
  Vec3 pos;
  float radius;
};

void add_balls(const Shape& shape, const Vec3& pos, const Quat& rot, std::vector<Ball>& balls) {
  switch (shape.kind) {
    case ShapeKind::kSphere:
      balls.push_back({pos, shape.size.x()});
      break;
    case ShapeKind::kCapsule:
    case ShapeKind::kCylinder:
      for (const float side : {-1.0f, 1.0f})
        balls.push_back({pos + side * shape.size.y() * (rot * Vec3::UnitZ()), shape.size.x()});
      break;
    case ShapeKind::kBox:
      for (int corner = 0; corner < 8; ++corner)
        balls.push_back({pos + rot * Vec3((corner & 1 ? 1.0f : -1.0f) * shape.size.x(),
                                          (corner & 2 ? 1.0f : -1.0f) * shape.size.y(),
                                          (corner & 4 ? 1.0f : -1.0f) * shape.size.z()),
                         0.0f});
      break;
  }
}

// Chooses what the camera leaves open: moves look_at across the view until the margins on opposite sides agree, with
// the distance at which the tighter direction just fits.
void frame(std::span<const Ball> balls, float aspect, mjvCamera& camera, bool free_look_at, bool free_distance) {
  const float azimuth = static_cast<float>(camera.azimuth) * kRadians,
              elevation = static_cast<float>(camera.elevation) * kRadians;
  const Vec3 forward(std::cos(elevation) * std::cos(azimuth), std::cos(elevation) * std::sin(azimuth),
                     std::sin(elevation));
  const Vec3 right(std::sin(azimuth), -std::cos(azimuth), 0.0f), up = right.cross(forward);
  constexpr float kUsed = 0.86f;  // of the picture, the rest is margin
  const float tan_up = half_view(aspect) * kUsed, tan_right = tan_up * aspect;

  Vec3 look_at(static_cast<float>(camera.lookat[0]), static_cast<float>(camera.lookat[1]),
               static_cast<float>(camera.lookat[2]));
  if (free_look_at) {
    Eigen::AlignedBox3f box;
    for (const Ball& ball : balls) box.extend(ball.pos);
    look_at = box.center();
  }
  float distance = static_cast<float>(camera.distance);
  for (int round = 0; round < 12; ++round) {
    if (free_distance) {
      distance = 0.5f;
      for (const Ball& ball : balls) {
        const Vec3 d = ball.pos - look_at;
        distance = std::max({distance, (std::abs(d.dot(right)) + ball.radius) / tan_right - d.dot(forward),
                             (std::abs(d.dot(up)) + ball.radius) / tan_up - d.dot(forward)});
      }
    }
    if (!free_look_at) break;
    float left = 0.0f, right_most = 0.0f, low = 0.0f, high = 0.0f;
    bool first = true;
    for (const Ball& ball : balls) {
      const Vec3 d = ball.pos - look_at;
      const float depth = std::max(0.1f, distance + d.dot(forward));
      const float x = d.dot(right) / depth, y = d.dot(up) / depth, r = ball.radius / depth;
      left = first ? x - r : std::min(left, x - r), right_most = first ? x + r : std::max(right_most, x + r);
      low = first ? y - r : std::min(low, y - r), high = first ? y + r : std::max(high, y + r);
      first = false;
    }
    look_at += 0.5f * distance * ((left + right_most) * right + (low + high) * up);
  }
  for (int i = 0; i < 3; ++i) camera.lookat[i] = look_at[i];
  camera.distance = distance;
}

}  // namespace

struct Renderer::Impl {
  int width, height;
  int factor;  // pixels drawn per pixel of the picture and side, averaged
  mjModel* model = nullptr;
  mjData* data = nullptr;
  OSMesaContext gl = nullptr;
  std::array<uint8_t, 4 * 16 * 16> window{};  // OSMesa's own buffer; MuJoCo draws into one of its making
  mjvScene scene;
  mjrContext context;
  std::vector<uint8_t> pixels;

  Impl(int w, int h) : width(w), height(h), factor(2 * std::max(w, h) <= kMaxSide ? 2 : 1) {
    mjv_defaultScene(&scene);
    mjr_defaultContext(&context);
    try {
      start();
    } catch (...) {
      stop();
      throw;
    }
  }
  ~Impl() { stop(); }

  void start() {
    const std::array<int, 9> wanted = {
        OSMESA_FORMAT, OSMESA_RGBA, OSMESA_DEPTH_BITS, 24, OSMESA_STENCIL_BITS, 8, OSMESA_ACCUM_BITS, 0, 0};
    gl = OSMesaCreateContextAttribs(wanted.data(), nullptr);
    if (!gl) fail("pictures cannot be drawn: OSMesa makes no OpenGL context; is the Debian package libosmesa6 whole?");
    make_current();
    model = compile_world();
    model->vis.global.offwidth = factor * width;
    model->vis.global.offheight = factor * height;
    const float aspect = static_cast<float>(width) / static_cast<float>(height);
    model->vis.global.fovy = 2.0f * std::atan(half_view(aspect)) / kRadians;
    data = mj_makeData(model);
    if (!data) fail("pictures cannot be drawn: out of memory");
    mj_forward(model, data);
    mjr_makeContext(model, &context, mjFONTSCALE_100);
    mjr_setBuffer(mjFB_OFFSCREEN, &context);
    if (context.currentBuffer != mjFB_OFFSCREEN || context.offWidth != factor * width)
      fail("pictures cannot be drawn: OpenGL gives no off-screen buffer of {} x {}", factor * width, factor * height);
    pixels.resize(size_t{3} * static_cast<size_t>(factor * width) * static_cast<size_t>(factor * height));
  }

  void stop() {
    if (gl) {
      OSMesaMakeCurrent(gl, window.data(), GL_UNSIGNED_BYTE, 16, 16);
      mjr_freeContext(&context);
    }
    mjv_freeScene(&scene);
    if (data) mj_deleteData(data);
    if (model) mj_deleteModel(model);
    if (gl) {
      // a context that is destroyed while it is current would stay current
      OSMesaMakeCurrent(nullptr, nullptr, GL_UNSIGNED_BYTE, 0, 0);
      OSMesaDestroyContext(gl);
    }
  }

  // OpenGL's current context is the thread's, and another Renderer may have taken it
  void make_current() {
    if (!OSMesaMakeCurrent(gl, window.data(), GL_UNSIGNED_BYTE, 16, 16))
      fail("pictures cannot be drawn: OSMesa's context cannot be made current");
  }

  void add_shapes(const Character& character, std::span<const CharacterState> states, std::vector<Ball>& balls) {
    const int needed = static_cast<int>(character.shapes.size() * states.size()) + 8;
    if (scene.maxgeom < needed) {
      mjv_freeScene(&scene);
      mjv_defaultScene(&scene);
      mjv_makeScene(model, &scene, needed);
    }
    scene.ngeom = 0;
    for (const CharacterState& state : states) {
      const CharacterStateView view = state.view();
      for (const Shape& shape : character.shapes) {
        const Vec3 pos = view.pos(shape.body) + view.rot(shape.body) * shape.pos;
        const Quat rot = view.rot(shape.body) * shape.rot;
        if (!pos.allFinite() || !rot.coeffs().allFinite()) fail("a state that is not finite cannot be drawn");
        add_balls(shape, pos, rot, balls);
        const Eigen::Matrix<mjtNum, 3, 3, Eigen::RowMajor> mat = rot.toRotationMatrix().cast<mjtNum>();
        const Eigen::Matrix<mjtNum, 3, 1> size = shape.size.cast<mjtNum>(), p = pos.cast<mjtNum>();
        mjvGeom& geom = scene.geoms[scene.ngeom++];
        mjv_initGeom(&geom, geom_type(shape.kind), size.data(), p.data(), mat.data(), shape.rgba.data());
        geom.category = mjCAT_DYNAMIC;
        geom.specular = 0.25f;
        geom.shininess = 0.3f;
      }
    }
  }

  // The sun's shadow map covers the balls and no more, so that shadow edges are fine.
  void place_sun(std::span<const Ball> balls) {
    Eigen::AlignedBox3f box;
    for (const Ball& ball : balls) box.extend(ball.pos);
    box.extend(Vec3(box.center().x(), box.center().y(), 0.0f));
    const Vec3 middle = box.center();
    context.shadowClip = 0.5f * box.diagonal().norm() + 0.8f;
    for (int i = 0; i < scene.nlight; ++i) {
      mjvLight& light = scene.lights[i];
      if (light.headlight) continue;
      Vec3Map(light.pos) = middle - (context.shadowClip + 2.0f) * Vec3Map(light.dir).normalized();
    }
  }

  Image draw(const Character& character, std::span<const CharacterState> states, const Camera& wanted) {
    if (states.empty()) fail("a picture of no states cannot be drawn");
    make_current();
    mjr_setBuffer(mjFB_OFFSCREEN, &context);

    std::vector<Ball> balls;
    add_shapes(character, states, balls);
    const int shapes = scene.ngeom;
    if (balls.empty()) balls.push_back({Vec3::Zero(), 1.0f});

    mjvCamera camera;
    mjv_defaultCamera(&camera);
    camera.azimuth = wanted.azimuth;
    camera.elevation = wanted.elevation;
    camera.distance = wanted.distance;
    if (wanted.look_at)
      for (int i = 0; i < 3; ++i) camera.lookat[i] = (*wanted.look_at)[i];
    frame(balls, static_cast<float>(width) / static_cast<float>(height), camera, !wanted.look_at,
          wanted.distance <= 0.0f);

    // floor, light and camera go behind the shapes
    mjvOption options;
    mjv_defaultOption(&options);
    mjv_addGeoms(model, data, &options, nullptr, mjCAT_STATIC, &scene);
    mjv_makeLights(model, data, &scene);
    mjv_updateCamera(model, data, &camera, &scene);
    if (scene.ngeom == shapes) fail("pictures cannot be drawn: the floor is missing");
    place_sun(balls);
    scene.flags[mjRND_SHADOW] = 1;
    scene.flags[mjRND_HAZE] = 1;
    scene.flags[mjRND_REFLECTION] = 0;

    const mjrRect viewport = {0, 0, factor * width, factor * height};
    mjr_render(viewport, &scene, &context);
    mjr_readPixels(pixels.data(), nullptr, viewport, &context);
    return averaged();
  }

  // Averages factor x factor pixels into one, and puts the top row first (OpenGL's first is the bottom one).
  Image averaged() const {
    Image image{width, height, {}};
    image.rgb.resize(size_t{3} * static_cast<size_t>(width) * static_cast<size_t>(height));
    const size_t stride = size_t{3} * static_cast<size_t>(factor * width);
    const int count = factor * factor;
    for (int y = 0; y < height; ++y) {
      uint8_t* out = image.rgb.data() + size_t{3} * static_cast<size_t>(y) * static_cast<size_t>(width);
      const uint8_t* in = pixels.data() + stride * static_cast<size_t>(factor * (height - 1 - y));
      for (int x = 0; x < width; ++x)
        for (int c = 0; c < 3; ++c) {
          int sum = count / 2;
          for (int j = 0; j < factor; ++j)
            for (int i = 0; i < factor; ++i) sum += in[stride * static_cast<size_t>(j) + 3 * (factor * x + i) + c];
          *out++ = static_cast<uint8_t>(sum / count);
        }
    }
    return image;
  }
};

Renderer::Renderer(int width, int height) {
  check_size(width, height);
  impl_ = std::make_unique<Impl>(width, height);
}

Image Renderer::draw(const Character& character, std::span<const CharacterState> states, const Camera& camera) {
  return impl_->draw(character, states, camera);
}

#else

struct Renderer::Impl {};

Renderer::Renderer(int width, int height) {
  check_size(width, height);
  fail("this build draws no pictures; build with -DCALM_RENDER=ON (needs the Debian package libosmesa6-dev)");
}

Image Renderer::draw(const Character&, std::span<const CharacterState>, const Camera&) { return {}; }

#endif

Renderer::~Renderer() = default;

Camera follow_camera(const Character& character, const CharacterState& state) {
  const Vec3 root = state.view().pos(0);
  // a character that stands takes about half of the picture's height
  const float tall = character.stand_height > 0.0f ? 2.0f * character.stand_height : 1.8f;
  Camera camera;
  camera.azimuth = 112.0f;
  camera.distance = 3.9f * tall;
  camera.look_at = Vec3(root.x(), root.y(), 0.5f * tall);
  return camera;
}

Image draw_states(const Character& character, std::span<const CharacterState> states, int width, int height,
                  const Camera& camera) {
  return Renderer(width, height).draw(character, states, camera);
}

Image draw_scene(const Character& character, const CharacterState& state, int width, int height) {
  return Renderer(width, height).draw(character, {&state, 1}, follow_camera(character, state));
}

void draw_character(const Character& character, const std::filesystem::path& path) {
  const CharacterState state = default_state(character);
  Renderer renderer(560, 800);
  std::vector<Image> views;
  for (const float azimuth : {150.0f, 90.0f, 30.0f}) {
    Camera camera;
    camera.azimuth = azimuth;
    views.push_back(renderer.draw(character, {&state, 1}, camera));
  }
  save_png(stack_images(views, 3), path);
}

}  // namespace calm
