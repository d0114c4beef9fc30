// `calm record`: what a policy does, as a clip.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <charconv>
#include <memory>

#include "base/error.h"
#include "base/file.h"
#include "motion/library.h"
#include "motion/recorder.h"
#include "play/session.h"
#include "tools/commands.h"
#include "tools/policy_files.h"

namespace calm {

namespace {

namespace fs = std::filesystem;

struct Act {
  int clip = 0;  // of the policy's latents
  double seconds = 0.0;
};

struct RecordOptions {
  std::string policy, character, sim = "simd", out, name;
  std::vector<std::string> acts, tags;
  double skip = 0.0;
  int blend_steps = 10;
};

// CLIP or CLIP:SECONDS.
Act parse_act(const std::string& text, const Policy& policy) {
  constexpr double kSeconds = 4.0;
  const size_t colon = text.rfind(':');
  Act act{policy.latent_index(text.substr(0, colon)), kSeconds};
  if (act.clip < 0) {
    std::vector<std::string> names;
    for (const auto& latent : policy.latents) names.push_back(latent.name);
    fail("--act {}: the policy knows no clip of that name; it knows {}", text, fmt::join(names, ", "));
  }
  if (colon == std::string::npos) return act;
  const char *begin = text.data() + colon + 1, *end = text.data() + text.size();
  const auto [rest, error] = std::from_chars(begin, end, act.seconds);
  if (error != std::errc() || rest != end || !(act.seconds > 0.0) || act.seconds > 3600.0)
    fail("--act {}: after the colon stands for how many seconds, more than 0 and at most 3600", text);
  return act;
}

void record(const RecordOptions& options) {
  const fs::path out = options.out;
  if (out.extension() != ".bvh" && out.extension() != ".calmlib")
    fail("{}: clips are written as .bvh or .calmlib", options.out);
  const PolicyFiles files = open_policy(options.policy, options.character);
  std::vector<Act> acts;
  double seconds = 0.0;
  for (const std::string& text : options.acts) {
    acts.push_back(parse_act(text, files.policy));
    seconds += acts.back().seconds;
  }
  if (options.skip >= seconds - 0.1)
    fail("--skip {}: all acts together last {:.1f} s, nothing would be left", options.skip, seconds);

  SessionSettings settings;
  settings.backend = options.sim;
  settings.physics = physics_of_policy(files.policy);
  settings.blend_steps = options.blend_steps;
  ThreadPool pool(1);
  Session session(files.character, files.policy, settings, pool);
  const double rate = settings.physics.control_rate;
  ClipRecorder recorder(files.character, static_cast<float>(rate));
  const auto add = [&] {
    if (session.time() >= options.skip - 0.5 / rate) recorder.add(session.state().view(0));
  };
  add();
  for (const Act& act : acts) {
    session.select_clip(act.clip);
    for (int step = 0; step < static_cast<int>(act.seconds * rate + 0.5); ++step) {
      session.tick();
      if (session.statistics().fallen || session.statistics().diverged > 0)
        fail("{}: {} after {:.1f} s, acting out {}; nothing is written", options.policy,
             session.statistics().fallen ? "it fell" : "physics failed", session.time(),
             files.policy.latents[act.clip].name);
      add();
    }
  }

  const std::string name = options.name.empty() ? out.stem().string() : options.name;
  Clip clip = recorder.clip(name, fmt::format("recorded from {}: {}", options.policy, fmt::join(options.acts, " ")));
  clip.tags = options.tags;
  if (out.extension() == ".bvh") {
    write_file_atomic(out, write_bvh(files.character, clip));
  } else {
    save_library(MotionLibrary(files.character, {clip}), out);
  }
  fmt::print("{}: {} frames, {:.1f} s\n", options.out, clip.num_frames, clip.length());
}

}  // namespace

void add_record_command(CLI::App& app) {
  auto* command = app.add_subcommand("record", "write what a policy does as a clip: BVH, or our own binary form");
  const auto options = std::make_shared<RecordOptions>();
  command->add_option("policy", options->policy, "run folder, policy folder or policy.safetensors")->required();
  command
      ->add_option("--act", options->acts,
                   "CLIP or CLIP:SECONDS, acted out one after the other from standing; 4 s by default")
      ->required();
  command->add_option("--out", options->out, "file to write, .bvh or .calmlib")->required();
  command->add_option("--skip", options->skip, "leave out so many seconds at the start")
      ->check(CLI::Range(0.0, 3600.0))
      ->capture_default_str();
  command->add_option("--blend", options->blend_steps, "control steps from one latent to the next")
      ->check(CLI::Range(1, 300))
      ->capture_default_str();
  command->add_option("--name", options->name, "of the clip; the file's by default");
  command->add_option("--tag", options->tags, "tags of the clip, in a .calmlib");
  command->add_option("--character", options->character, "MJCF file; the policy's by default");
  command->add_option("--sim", options->sim, "physics backend")->capture_default_str();
  command->callback([options] { record(*options); });
}

}  // namespace calm
