#include "env/task_env.h"

#include "base/error.h"
#include "base/pack.h"

namespace calm {

float style_score(const StyleLatents& style, const Eigen::Ref<const Eigen::VectorXf>& z) {
  return 0.5f * ((style.windows * z).maxCoeff() + 1.0f);
}

TaskEnv::TaskEnv(const Task& task, TaskWorld world, std::vector<StyleLatents> styles, const MotionLibrary& library,
                 Actors& actors, ThreadPool& pool, const TaskSettings& settings, float dt, uint64_t seed)
    : task_(task),
      world_(std::move(world)),
      styles_(std::move(styles)),
      library_(library),
      actors_(actors),
      pool_(pool),
      settings_(settings),
      dt_(dt),
      targets_(actors.size()),
      steps_(actors.size(), 0),
      redraw_left_(actors.size(), 0),
      task_reward_(actors.size(), 0.0f),
      style_reward_(actors.size(), 0.0f),
      fell_(actors.size(), 0),
      out_of_time_(actors.size(), 0),
      success_(actors.size(), 0) {
  const Character& character = actors.character();
  world_.character = &character;
  if (settings.decision_steps < 1) fail("settings: env.decision_steps must be at least 1");
  if (task.styled && styles_.empty()) fail("task `{}`: moves in styles, and none is given", task.name);
  if (styles_.size() != world_.styles.size()) fail("task `{}`: a latent is needed for each style", task.name);
  world_.shield = character.body_index("shield");
  if (task.name == "block" && world_.shield < 0)
    fail("task `block`: {} has no body named `shield`; use a character that has one", character.name);
  for (const char* name : {"sword", "right_hand", "right_lower_arm"})
    if (world_.hand < 0) world_.hand = character.body_index(name);
  if (world_.hand < 0 && task.name == "reach")
    fail("task `reach`: {} has no body named sword, right_hand or right_lower_arm", character.name);
  for (int e = 0; e < size(); ++e) rngs_.emplace_back(seed, 0x7a5cull + static_cast<uint64_t>(e));
  for (int w = 0; w < pool.size(); ++w) scratch_.emplace_back(character);
  inputs_ = RowMatrix::Zero(size(), num_inputs());
}

int TaskEnv::num_inputs() const {
  return actors_.character().observation_size() + task_.goal_size + (task_.styled ? actors_.policy().latent_size : 0);
}

TaskView TaskEnv::view(int env, const Vec3& root_before, float seconds) const {
  const auto body = actors_.view(env);
  TaskView view{{body.pos(0), root_before, Quat(body.rot(0)), seconds}, body, {}, Vec3::Zero(), nullptr};
  const BatchState& state = actors_.state();
  view.contact_force = &state.contact_force[3 * static_cast<size_t>(env) * state.num_bodies];
  if (!task_.props.empty()) {
    view.prop = actors_.prop(env, 0);
    view.prop_force = ConstVec3Map(&state.prop_force[3 * static_cast<size_t>(env) * state.num_props]);
  }
  return view;
}

void TaskEnv::place_prop(int env) {
  if (task_.place_prop == nullptr) return;
  const auto now = view(env, actors_.view(env).pos(0), dt_);
  actors_.simulator().set_prop(env, 0, task_.place_prop(world_, now, rngs_[env], targets_[env]));
}

void TaskEnv::draw_target(int env) {
  Rng& rng = rngs_[env];
  task_.draw(world_, view(env, actors_.view(env).pos(0), dt_), rng, targets_[env]);
  place_prop(env);
  redraw_left_[env] = task_.redraw_max > 0 ? task_.redraw_min + rng.below(task_.redraw_max - task_.redraw_min + 1)
                                           : settings_.episode_steps + 1;
}

void TaskEnv::write_inputs(int env, const Vec3& root_before, float seconds) {
  const auto& obs = actors_.observations();
  float* out = inputs_.row(env).data();
  std::copy_n(obs.row(env).data(), obs.cols(), out);
  out += obs.cols();
  task_.write_goal(world_, view(env, root_before, seconds), targets_[env], out);
  if (task_.styled) std::copy_n(style(env).z.data(), style(env).z.size(), out + task_.goal_size);
}

void TaskEnv::reset(int env, CharacterState& scratch) {
  Rng& rng = rngs_[env];
  RootState root;
  if (rng.uniform() < settings_.reset_from_clip) {
    const int clip = library_.sampler().sample_clip(rng);
    library_.state(clip, rng.uniform() * library_.clip(clip).length(), scratch);
    root = scratch.root();
  } else {
    scratch = default_state(actors_.character());
    root = scratch.root();
  }
  // anywhere round the compass
  const Quat turn = quat_about_z(rng.uniform(-kPi, kPi));
  root.pos.head<2>().setZero();
  root.rot = turn * root.rot, root.vel = turn * root.vel, root.ang_vel = turn * root.ang_vel;
  actors_.place(env, root, scratch.dof_pos, scratch.dof_vel);
  steps_[env] = 0;
  fell_[env] = out_of_time_[env] = success_[env] = 0;
  draw_target(env);
  write_inputs(env, root.pos, dt_);
}

void TaskEnv::reset_all() {
  pool_.parallel_for(size(), 4, [&](int env, int worker) {
    reset(env, scratch_[worker]);
    steps_[env] = rngs_[env].below(settings_.episode_steps);  // so that they do not all end at once
  });
}

void TaskEnv::decide(const RowMatrix& latents) {
  std::vector<Vec3> before(size());
  for (int e = 0; e < size(); ++e) {
    actors_.set_latent(e, latents.row(e).transpose());
    before[e] = actors_.view(e).pos(0);
    fell_[e] = 0;
  }
  for (int k = 0; k < settings_.decision_steps; ++k) {
    actors_.step();
    for (int e = 0; e < size(); ++e) fell_[e] |= static_cast<uint8_t>(actors_.fallen(e));
  }
  const float seconds = static_cast<float>(settings_.decision_steps) * dt_;
  pool_.parallel_for(size(), 8, [&](int e, int) {
    steps_[e] += settings_.decision_steps;
    redraw_left_[e] -= settings_.decision_steps;
    const TaskView now = view(e, before[e], seconds);
    task_reward_[e] = fell_[e] ? 0.0f : task_.reward(world_, now, targets_[e]);
    style_reward_[e] = task_.styled ? style_score(style(e), latents.row(e).transpose()) : 0.0f;
    success_[e] = !fell_[e] && task_.success(world_, now, targets_[e]);
    if (!settings_.end_at_fall) fell_[e] = actors_.state().diverged[e];
    out_of_time_[e] = !fell_[e] && (steps_[e] >= settings_.episode_steps || (settings_.end_at_success && success_[e]));
    write_inputs(e, before[e], seconds);
  });
}

void TaskEnv::reset_finished() {
  pool_.parallel_for(size(), 4, [&](int e, int worker) {
    if (fell_[e] || out_of_time_[e]) {
      reset(e, scratch_[worker]);
    } else if (redraw_left_[e] <= 0) {
      draw_target(e);
      write_inputs(e, actors_.view(e).pos(0), dt_);
    }
  });
}

std::string TaskEnv::save() const {
  Packer out;
  for (int e = 0; e < size(); ++e) {
    const TaskTarget& t = targets_[e];
    for (const float x : {t.direction.x(), t.direction.y(), t.facing.x(), t.facing.y(), t.place.x(), t.place.y(),
                          t.point.x(), t.point.y(), t.point.z(), t.speed})
      out.put(x);
    out.put(t.style), out.put(steps_[e]), out.put(redraw_left_[e]), out.put(rngs_[e].state());
  }
  out.put_array(std::span<const float>(inputs_.data(), static_cast<size_t>(inputs_.size())));
  out.put_array(std::span<const uint8_t>(fell_));
  out.put_array(std::span<const uint8_t>(out_of_time_));
  const std::string actors = actors_.save();
  out.put_array(std::span<const char>(actors));
  return out.bytes;
}

void TaskEnv::restore(const std::string& saved) {
  Unpacker in(saved);
  for (int e = 0; e < size(); ++e) {
    TaskTarget& t = targets_[e];
    for (float* x : {&t.direction.x(), &t.direction.y(), &t.facing.x(), &t.facing.y(), &t.place.x(), &t.place.y(),
                     &t.point.x(), &t.point.y(), &t.point.z(), &t.speed})
      *x = in.get<float>();
    t.style = in.get<int>(), steps_[e] = in.get<int>(), redraw_left_[e] = in.get<int>();
    if (t.style < 0 || t.style >= std::max<int>(1, static_cast<int>(styles_.size())))
      fail("saved environments do not fit: other styles");
    rngs_[e].set_state(in.get<Rng::State>());
  }
  std::vector<float> rows(static_cast<size_t>(inputs_.size()));
  in.get_array(rows);
  inputs_ = ConstRowMatrixMap(rows.data(), inputs_.rows(), inputs_.cols());
  in.get_array(fell_), in.get_array(out_of_time_);
  std::vector<char> actors;
  in.get_array(actors, true);
  in.finish();
  actors_.restore({actors.begin(), actors.end()});
}

}  // namespace calm
