// Settings of the training environments: plain numbers, which a GPU reads too.
#pragma once

namespace calm {

struct EnvSettings {
  int episode_steps = 300;        // control steps until a time-out
  float reset_from_clip = 0.5f;   // share of resets to a random clip state; the rest start standing
  float reset_fallen = 0.1f;      // share of all resets that start from the bank of fallen states
  float recover_in_place = 0.2f;  // share of falls after which the episode goes on from where it lies
  int recovery_grace = 60;        // control steps of a recovery episode in which a fall does not end it
  // In those the tracking score tells how nearly the character stands, and once it does they last half a second more
  // (not in the paper).
  bool recovery_score = false;
  int fallen_bank = 256;          // states in the bank
  int fallen_settle_steps = 150;  // control steps a bank state falls and settles for
  int latent_steps_min = 10;      // a latent is held for a random number of control steps in
  int latent_steps_max = 150;     // [min, max]
  float latent_of_start = 0.0f;   // share of clip resets whose first latent is of the clip and time started from
  float follow_limit = 0.0f;      // > 0: a following episode ends as a fall where its tracking score is below this
  int discriminator_frames = 10;  // consecutive control steps, newest first
  int encoder_frames = 60;        // 2 s
};

template <class Visitor>
void visit(Visitor& v, EnvSettings& s) {
  v("episode_steps", s.episode_steps);
  v("reset_from_clip", s.reset_from_clip);
  v("reset_fallen", s.reset_fallen);
  v("recover_in_place", s.recover_in_place);
  v("recovery_grace", s.recovery_grace);
  v("recovery_score", s.recovery_score);
  v("fallen_bank", s.fallen_bank);
  v("fallen_settle_steps", s.fallen_settle_steps);
  v("latent_steps_min", s.latent_steps_min);
  v("latent_steps_max", s.latent_steps_max);
  v("latent_of_start", s.latent_of_start);
  v("follow_limit", s.follow_limit);
  v("discriminator_frames", s.discriminator_frames);
  v("encoder_frames", s.encoder_frames);
}

}  // namespace calm
