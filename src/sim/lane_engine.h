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
    const int room = ContactFinder<Real>::room_for_all(model);
    Arena dry;
    (void)Stepper<Real>(model, room, dry);
    memory_.reset(::operator new (dry.used(), std::align_val_t{Arena::kAlignment}));
    std::memset(memory_.get(), 0, dry.used());
    Arena arena(memory_.get());
    stepper_ = std::make_unique<Stepper<Real>>(model, room, arena);
  }

  int lanes() const override { return LanesOf<Real>::kCount; }

  void step(const LaneRows<S>& rows, const LaneReport<S>& report) override {
    stepper_->load(rows);
    stepper_->step();
    stepper_->report(report);
    stepper_->store(rows);
  }

  Inspection inspect(const LaneRows<S>& rows, int l) override {
    stepper_->load(rows);
    stepper_->accelerate();
    const int n = model_.num_velocities;
    std::vector<Real> unconstrained(stepper_->forces, stepper_->forces + n);
    stepper_->dynamics.factorise();
    stepper_->dynamics.solve(unconstrained.data());
    Inspection out;
    out.mass.assign(static_cast<size_t>(n) * n, 0.0);
    for (int i = 0; i < n; ++i) {
      int entry = model_.row_start[i];
      for (int e = i; e >= 0; e = model_.parent_velocity[e], ++entry)
        out.mass[i * n + e] = out.mass[e * n + i] = lane(stepper_->dynamics.mass[entry], l);
      out.bias.push_back(lane(stepper_->dynamics.bias[i], l));
      out.unconstrained.push_back(lane(unconstrained[i], l));
      out.acceleration.push_back(lane(stepper_->accelerations[i], l));
    }
    const auto put = [l](const Vec3Of<Real>& v, double(&to)[3]) {
      to[0] = lane(v.x, l), to[1] = lane(v.y, l), to[2] = lane(v.z, l);
    };
    for (int i = 0; i < stepper_->finder.num_contacts; ++i) {
      const Contact<Real>& c = stepper_->finder.contacts[i];
      if (!lane(c.active, l)) continue;
      Inspection::Contact& contact = out.contacts.emplace_back();
      contact.shape_a = c.shape_a, contact.shape_b = c.shape_b, contact.distance = lane(c.distance, l);
      put(c.point + stepper_->dynamics.root_pos, contact.point);
      put(c.normal, contact.normal), put(c.tangent, contact.tangent);
      put(stepper_->solver.contact_force(i), contact.force);
    }
    out.residual = lane(stepper_->solver.residual(), l);
    return out;
  }

 private:
  struct Free {
    void operator()(void* memory) const { ::operator delete (memory, std::align_val_t{Arena::kAlignment}); }
  };
  ModelView<S> model_;
  std::unique_ptr<void, Free> memory_;
  std::unique_ptr<Stepper<Real>> stepper_;
};

}  // namespace calm
