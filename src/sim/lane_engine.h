// The engine of a width: a Stepper and its memory.
#pragma once

#include <cstring>
#include <new>

#include "sim/engine.h"
#include "sim/stepper.h"

namespace calm {

template <class Real>
class LaneEngine final : public Engine<ScalarOf<Real>> {
 public:
  using S = ScalarOf<Real>;

  explicit LaneEngine(const ModelView<S>& model) : model_(model) {
    const Sizes room = Sizes::of(model, ContactFinder<Real>::room_for_all(model));
    Arena dry;
    (void)Stages<Real>(model_, room, dry);
    const size_t own = (dry.used() + Arena::kAlignment - 1) / Arena::kAlignment * Arena::kAlignment;
    const size_t bytes = own + dry.common_used();
    memory_.reset(::operator new (bytes, std::align_val_t{Arena::kAlignment}));
    std::memset(memory_.get(), 0, bytes);
    Arena arena(memory_.get(), static_cast<char*>(memory_.get()) + own);
    stages_ = std::make_unique<Stages<Real>>(model_, room, arena);
  }

  int lanes() const override { return LanesOf<Real>::kCount; }

  void step(const LaneRows<S>& rows, const LaneReport<S>& report) override {
    stages_->stepper.load(rows);
    stages_->stepper.step();
    stages_->stepper.report(report);
    stages_->stepper.store(rows);
  }

  Inspection inspect(const LaneRows<S>& rows, int l) override {
    stages_->stepper.load(rows);
    stages_->stepper.accelerate();
    const int n = model_.num_velocities;
    std::vector<Real> unconstrained(stages_->stepper.forces, stages_->stepper.forces + n);
    stages_->dynamics.factorise();
    stages_->dynamics.solve(unconstrained.data());
    Inspection out;
    out.mass.assign(static_cast<size_t>(n) * n, 0.0);
    for (int i = 0; i < n; ++i) {
      int entry = model_.row_start[i];
      for (int e = i; e >= 0; e = model_.parent_velocity[e], ++entry)
        out.mass[i * n + e] = out.mass[e * n + i] = lane(stages_->dynamics.mass[entry], l);
      out.bias.push_back(lane(stages_->dynamics.bias[i], l));
      out.unconstrained.push_back(lane(unconstrained[i], l));
      out.acceleration.push_back(lane(stages_->stepper.accelerations[i], l));
    }
    const auto put = [l](const Vec3Of<Real>& v, double(&to)[3]) {
      to[0] = lane(v.x, l), to[1] = lane(v.y, l), to[2] = lane(v.z, l);
    };
    for (int i = 0; i < stages_->finder.num_contacts; ++i) {
      const Contact<Real>& c = stages_->finder.contacts[i];
      if (!lane(c.active, l)) continue;
      Inspection::Contact& contact = out.contacts.emplace_back();
      contact.shape_a = stages_->finder.sides[i].shape_a, contact.shape_b = stages_->finder.sides[i].shape_b;
      contact.distance = lane(c.distance, l);
      put(c.point + stages_->dynamics.root_pos, contact.point);
      put(c.normal, contact.normal), put(c.tangent, contact.tangent);
      put(stages_->solver.contact_force(i), contact.force);
    }
    out.residual = lane(stages_->solver.residual(), l);
    return out;
  }

 private:
  struct Free {
    void operator()(void* memory) const { ::operator delete (memory, std::align_val_t{Arena::kAlignment}); }
  };
  ModelView<S> model_;
  std::unique_ptr<void, Free> memory_;
  std::unique_ptr<Stages<Real>> stages_;
};

}  // namespace calm
