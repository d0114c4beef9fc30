#include "learn/directed_measures.h"

#include <map>

#include "base/error.h"
#include "base/progress.h"
#include "direct/stage.h"
#include "env/task_table.h"
#include "features/features.h"
#include "learn/high_level_trainer.h"
#include "learn/motion_distance.h"

namespace calm {

namespace {

constexpr float kTurnEvery = 5.0f;  // s between new directions
constexpr float kTurning = 1.5f;    // s of these in which it may turn
constexpr float kHeadingEpisode = 15.0f;
constexpr float kMovement = 0.5f;  // s over which the direction of movement is taken: a stride sways
constexpr float kFar = 10.0f;      // m to the pillar; places lie within a square of twice that side
constexpr float kReach = 0.9f;     // m from a pillar at which it is struck
constexpr float kSlowFrom = 3.0f;  // m from the target at which a fast style gives way
constexpr float kFast = 2.0f;      // m/s
constexpr float kArrived = 0.5f;   // m from a place at which it stays

class Measurer {
 public:
  Measurer(const Policy& policy, const HighLevelPolicy& high, const MotionEncoder* encoder, const Character& character,
           const MotionLibrary& library, const PhysicsSettings& physics, const std::string& backend,
           const DirectedSettings& settings, ThreadPool& pool)
      : policy_(policy),
        high_(high),
        character_(character),
        library_(library),
        physics_(physics),
        backend_(backend),
        settings_(settings),
        pool_(pool),
        dt_(1.0f / physics.control_rate) {
    for (const auto* names : {&settings.styles, &settings.strikes, &settings.stays})
      for (const std::string& name : *names) clip(name);
    clip(settings.slow_style);
    HighLevelSettings of_styles;
    of_styles.styles = settings.styles;
    std::vector<Style> styles;
    find_styles(of_styles, policy, encoder, library, dt_, styles, styles_);
  }

  DirectedMeasures measure() {
    const size_t cells = settings_.styles.size() * (1 + settings_.strikes.size() + settings_.stays.size()) + 1;
    Progress progress("eval directing", static_cast<double>(cells), "parts");
    int part = 0;
    DirectedMeasures out;
    for (size_t s = 0; s < settings_.styles.size(); ++s) {
      out.styled_heading.push_back(measure_heading(s));
      progress.update(++part);
    }
    for (const std::string& style : settings_.styles) {
      for (const std::string& act : settings_.strikes) {
        out.strike.push_back(measure_machine(style, act, true));
        progress.update(++part);
      }
      for (const std::string& act : settings_.stays) {
        out.location.push_back(measure_machine(style, act, false));
        progress.update(++part);
      }
    }
    measure_transitions(out);
    progress.update(++part);
    return out;
  }

 private:
  int clip(const std::string& name) const {
    const int index = policy_.latent_index(name);
    if (index < 0)
      fail("measures: the policy knows no clip `{}`; name styles and acts with --styles, --strikes, --stays", name);
    return index;
  }
  int steps(float seconds) const { return static_cast<int>(std::lround(seconds / dt_)); }
  Rng rng(uint64_t purpose, int i) const {
    return Rng(static_cast<uint64_t>(settings_.seed), (purpose << 32) + static_cast<uint64_t>(i));
  }
  void place_in_clip(Actors& actors, int i, int of_policy, Rng& r) const {
    const int c = library_.clip_index(policy_.latents[of_policy].name);
    if (c < 0) fail("measures: clip `{}` is not among the motions", policy_.latents[of_policy].name);
    CharacterState state(character_);
    library_.state(c, r.uniform() * library_.clip(c).length(), state);
    RootState root = state.root();
    const Quat turn = quat_about_z(r.uniform(-kPi, kPi));
    root.pos.head<2>().setZero();
    root.rot = turn * root.rot, root.vel = turn * root.vel, root.ang_vel = turn * root.ang_vel;
    actors.place(i, root, state.dof_pos, state.dof_vel);
    actors.set_latent(i, policy_.latents[of_policy].z);
  }

  StyledHeading measure_heading(size_t style) {
    StyledHeading out;
    out.style = settings_.styles[style];
    const int n = settings_.episodes, of_policy = clip(out.style), length = steps(kHeadingEpisode),
              turn = steps(kTurnEvery);
    Actors actors(policy_, character_, physics_, backend_, n, pool_);
    Director director(actors, high_);
    out.speed_asked = director.speed_of(of_policy);
    std::vector<Rng> rngs;
    std::vector<Command> commands(n);
    for (int i = 0; i < n; ++i) {
      rngs.push_back(rng(0x4ead + style, i));
      place_in_clip(actors, i, of_policy, rngs[i]);
      commands[i].kind = Command::Kind::kMove, commands[i].clip = of_policy;
    }
    const int window = steps(kMovement);
    std::vector<std::vector<Vec2>> way(n);  // of the root
    std::vector<double> cosine(n, 0.0), with_turns(n, 0.0);
    const int turning = steps(kTurning), straight = length / turn * (turn - turning);
    std::vector<uint8_t> fell(n, 0);
    double score = 0.0, decisions = 0.0, error = 0.0, moving = 0.0;
    for (int i = 0; i < n; ++i) way[i].push_back(actors.view(i).pos(0).head<2>());
    for (int step = 0; step < length; ++step) {
      if (step % turn == 0)
        for (int i = 0; i < n; ++i) {
          const float angle = rngs[i].uniform(-kPi, kPi);
          commands[i].direction = {std::cos(angle), std::sin(angle)};
        }
      director.direct(commands);
      if (step % high_.decision_steps == 0)
        for (int i = 0; i < n; ++i)
          if (!fell[i]) score += style_score(styles_[style], actors.latent(i).transpose()), ++decisions;
      actors.step();
      for (int i = 0; i < n; ++i) {
        fell[i] |= static_cast<uint8_t>(actors.fallen(i));
        way[i].push_back(actors.view(i).pos(0).head<2>());
        if (fell[i]) continue;
        const Vec2 moved = way[i].back() - way[i][std::max<int>(0, static_cast<int>(way[i].size()) - 1 - window)];
        const double along = moved.norm() > 1e-3f ? moved.normalized().dot(commands[i].direction) : 0.0;
        with_turns[i] += along / length;
        if (step % turn >= turning) cosine[i] += along / straight;
        // once the turn is over
        if (step % turn >= turn / 2 && step >= window) {
          error += std::abs(static_cast<double>(moved.norm()) / kMovement - out.speed_asked);
          ++moving;
        }
      }
    }
    out.style_score = decisions > 0.0 ? score / decisions : 0.0;
    out.heading_cosine = mean_of(cosine), out.heading_cosine_with_turns = mean_of(with_turns);
    out.speed_error = moving > 0.0 ? error / moving : 0.0;
    out.stays_up = share_of(n - static_cast<int>(std::ranges::count(fell, uint8_t{1})), n);
    return out;
  }

  MachineState move(const char* name, int style) const {
    MachineState s;
    s.name = name, s.kind = MachineState::Kind::kMove, s.clip = style;
    return s;
  }
  static Transition when(Condition::What what, bool greater, float value, int to) {
    return {{{what, greater, value, {}}}, to, {}};
  }

  // As configs/state_machines has them: approach in a style, slower near the target if the style is fast, then the act.
  Machine machine(const std::string& style, const std::string& act, bool strike, float speed) const {
    using What = Condition::What;
    Machine m;
    m.get_up_clip = std::max(0, policy_.latent_index("stand"));
    const int approach = 0, near = 1, last = 2, after = 3;
    const float reach = strike ? kReach : kArrived;
    m.states = {
        move("approach", clip(style)), move("near", clip(speed > kFast ? settings_.slow_style : style)), {}, {}};
    m.states[last].clip = clip(act), m.states[last].seconds = policy_.latents[clip(act)].duration;
    m.states[after].clip = std::max(0, policy_.latent_index("raise_arms")), m.states[after].final = true;
    for (MachineState& s : m.states)
      if (strike && !s.final) s.transitions.push_back(when(What::kTargetLeans, false, 0.0f, after));
    m.states[approach].transitions.push_back(when(What::kDistance, false, kSlowFrom, near));
    m.states[near].transitions.push_back(when(What::kDistance, false, reach, last));
    if (strike) {
      m.states[last].transitions.push_back(
          {{{What::kClipFinished, false, 0.0f, {}}, {What::kDistance, true, kReach + 0.4f, {}}}, near, {}});
      m.states[last].transitions.push_back(when(What::kTime, true, 4.0f, near));
    } else {
      m.states[last].transitions.push_back(when(What::kDistance, true, 1.0f, near));
    }
    return m;
  }

  MachineCell measure_machine(const std::string& style, const std::string& act, bool strike) {
    const int n = settings_.episodes;
    std::vector<Prop> props;
    if (strike) props.push_back(strike_pillar());
    Actors actors(policy_, character_, physics_, backend_, n, pool_, props);
    Director director(actors, high_);
    const float speed = director.speed_of(clip(style));
    const Machine m = machine(style, act, strike, speed);
    Stage stage(actors, director, m, strike ? TargetKind::kPillar : TargetKind::kPlace, dt_);
    std::vector<int> limit(n);
    int longest = 0;
    for (int i = 0; i < n; ++i) {
      Rng r = rng(strike ? 0x571 : 0x10c, i);
      const float bearing = r.uniform(-kPi, kPi);
      const Vec2 at = strike ? Vec2(kFar * Vec2(std::cos(bearing), std::sin(bearing)))
                             : Vec2(r.uniform(-kFar, kFar), r.uniform(-kFar, kFar));
      stage.start(i, r.uniform(-kPi, kPi), at);
      // the reference's ten seconds, and what the way takes at the style's speed
      limit[i] = steps(10.0f + 1.2f * at.norm() / std::max(speed, 0.2f));
      longest = std::max(longest, limit[i]);
    }
    std::vector<uint8_t> fell(n, 0), loose(n, 0), strict(n, 0);
    std::vector<int> still(n, 0);
    std::vector<Vec2> before(n, Vec2::Zero());
    for (int step = 0; step < longest; ++step) {
      stage.step();
      for (int i = 0; i < n; ++i) {
        if (step >= limit[i]) continue;
        const Senses s = stage.senses(i);
        fell[i] |= static_cast<uint8_t>(s.fallen);
        if (strike) {
          const bool down = s.target_up < 0.2f;
          loose[i] |= static_cast<uint8_t>(down), strict[i] |= static_cast<uint8_t>(down && !fell[i]);
        } else {
          const bool there = (s.target - s.pos).norm() < 1.0f;
          // the reference's threshold: squared displacement of a step over dt
          loose[i] |= static_cast<uint8_t>(there && step > 0 && (s.pos - before[i]).squaredNorm() / dt_ < 0.5f);
          still[i] = there && !fell[i] && s.speed < 0.5f ? still[i] + 1 : 0;
          strict[i] |= static_cast<uint8_t>(still[i] >= steps(0.5f));
        }
        before[i] = s.pos;
      }
    }
    const auto count = [n](const std::vector<uint8_t>& v) {
      return share_of(static_cast<int>(std::ranges::count(v, uint8_t{1})), n);
    };
    return {style, act, count(loose), count(strict)};
  }

  // Two seconds of one clip, then another: in the third second after the change at the latest nothing has fallen, and
  // from one second on the motion is nearer to the new clip than to the old one.
  void measure_transitions(DirectedMeasures& out) {
    const int clips = static_cast<int>(policy_.latents.size()), n = clips * (clips - 1);
    Actors actors(policy_, character_, physics_, backend_, n, pool_);
    Director director(actors, high_);
    const int before = steps(2.0f), late = steps(1.0f), after = steps(3.0f);
    const MotionDistance to(library_, dt_, late);
    const std::vector<int> group = to.groups(kNearDuplicate);
    std::vector<std::pair<int, int>> pair(n);
    std::vector<Command> commands(n);
    std::vector<MotionDistance::Rows> rows(n, MotionDistance::Rows(after - late, character_.motion_feature_size()));
    std::vector<uint8_t> fell(n, 0), good(n, 0), fell_before(n, 0);
    for (int i = 0; i < n; ++i) {
      const int from = i / (clips - 1), other = i % (clips - 1);
      pair[i] = {from, other < from ? other : other + 1};
      Rng r = rng(0x7a45, i);
      place_in_clip(actors, i, from, r);
      commands[i].clip = from;
    }
    for (int step = 0; step < before + after; ++step) {
      if (step == before)
        for (int i = 0; i < n; ++i) commands[i].clip = pair[i].second;
      director.direct(commands);
      actors.step();
      pool_.parallel_for(n, 8, [&](int i, int) {
        (step < before ? fell_before : fell)[i] |= static_cast<uint8_t>(actors.fallen(i));
        if (step >= before + late)
          write_motion_features(character_, actors.view(i), rows[i].row(step - before - late).data());
      });
    }
    pool_.parallel_for(n, 4, [&](int i, int) {
      if (fell[i]) return;
      const std::vector<double> distance = to.to_clips(rows[i]);
      const int from = library_.clip_index(policy_.latents[pair[i].first].name),
                into = library_.clip_index(policy_.latents[pair[i].second].name);
      good[i] = group[from] == group[into] || distance[into] < distance[from];
    });
    // a character that lay before the change has nothing to change from
    std::map<std::string, std::pair<int, int>> into;
    int all = 0, succeed = 0, up = 0;
    for (int i = 0; i < n; ++i) {
      if (fell_before[i]) continue;
      ++all, succeed += good[i], up += !fell[i];
      auto& [count, of] = into[policy_.latents[pair[i].second].name];
      count += good[i], ++of;
    }
    out.transitions = share_of(succeed, all), out.transitions_stay_up = share_of(up, all);
    for (const auto& [name, counts] : into)
      if (counts.first < counts.second)
        out.worst_transitions.emplace_back(name, static_cast<double>(counts.first) / counts.second);
    std::ranges::sort(out.worst_transitions, {}, [](const auto& w) { return w.second; });
    if (out.worst_transitions.size() > 5) out.worst_transitions.resize(5);
  }

  const Policy& policy_;
  const HighLevelPolicy& high_;
  const Character& character_;
  const MotionLibrary& library_;
  const PhysicsSettings& physics_;
  const std::string& backend_;
  const DirectedSettings& settings_;
  ThreadPool& pool_;
  float dt_;
  std::vector<StyleLatents> styles_;  // of settings_.styles
};

}  // namespace

DirectedMeasures measure_directing(const Policy& policy, const HighLevelPolicy& high, const MotionEncoder* encoder,
                                   const Character& character, const MotionLibrary& library,
                                   const PhysicsSettings& physics, const std::string& backend,
                                   const DirectedSettings& settings, ThreadPool& pool) {
  return Measurer(policy, high, encoder, character, library, physics, backend, settings, pool).measure();
}

}  // namespace calm
