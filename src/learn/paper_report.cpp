#include "learn/paper_report.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <boost/beast/core/detail/base64.hpp>
#include <cmath>
#include <numeric>
#include <optional>

#include "base/error.h"
#include "base/file.h"
#include "base/markup.h"
#include "draw/draw.h"

namespace calm {

namespace {

constexpr MeasureDefinition kDefinitions[] = {
    {"fisher", "Fisher concentration",
     "scatter of latents within a clip over scatter between the clips' means; a class is all windows of the encoder's "
     "2 s in one clip, a control step apart; lower is better",
     "Tessler et al. 2023, section 7.1", "0.23"},
    {"inception", "Inception Score",
     "exp of the mean Kullback-Leibler divergence of a window's class probabilities from those of all windows, over "
     "the "
     "episodes' windows of 1 s, by a classifier that learnt from the clips alone",
     "Salimans et al. 2016; Tessler et al. 2023, section 7.1", "19.8"},
    {"inception_of_clips", "Inception Score of the clips",
     "the same over windows of the clips: the most that they allow", "ours", ""},
    {"controllability.classifier_top1", "named right by the classifier",
     "share of episodes whose windows, taken together, the classifier names after the clip asked for",
     "ours, for the people in Tessler et al. 2023, section 7.2", "0.78, by people"},
    {"controllability.classifier_top3", "among the classifier's first three",
     "the same, the clip among the three likeliest", "ours", ""},
    {"controllability.nearest_clip", "nearest clip is the one asked for",
     "share of episodes whose nearest clip, by differences of motion features in windows of 1 s at the best alignment, "
     "both ways, is the clip asked for",
     "ours", ""},
    {"controllability.chance", "chance", "one over the classes", "", ""},
    {"classifier.held_out_accuracy", "classifier on held-out windows of the clips",
     "share of windows, out of a quarter of each clip kept from its learning, that the classifier names right", "ours",
     ""},
    {"classifier.standing_still_named_right", "standing still, named right",
     "share of the clips that the classifier takes a standing pose for; it should be one clip at most", "ours", ""},
    {"stays_up", "stays up for 10 s",
     "share of the episodes from the clips in which nothing but a foot touches the floor", "ours", ""},
    {"get_up.within_4s", "gets up within 4 s",
     "share of characters dropped, thrashed for 5 s and left to the latent of a random upright clip that are up in "
     "time: "
     "root above three quarters of its standing height and within 45 degrees of upright for half a second",
     "ours; the reference shows getting up, but does not count it", ""},
    {"get_up.mean_s", "time until up, s", "mean over those that are up within 8 s", "ours", ""},
    {"push_recovery.push", "recovers from a push",
     "share that is still up 3 s after a sudden push of the trunk in a random horizontal direction, acting out upright "
     "clips; those that fell before do not count",
     "ours", ""},
    {"push_recovery.box", "recovers from a thrown box",
     "the same with a box of 20 cm thrown at the trunk from a metre away",
     "ours, for the reference's perturbation task", ""},
    {"foot_slide", "foot slide, m/s",
     "mean horizontal speed of feet that are down: their origin within 2 cm of its height in standing", "ours", ""},
    {"foot_slide_of_clips", "foot slide of the clips, m/s", "the same of the clips", "ours", ""},
    {"jerk_ratio", "jerk over the clips'",
     "mean third difference of the bodies' positions at the control rate, over that of the clips", "ours", ""},
    {"interpolation_smoothness", "jerk while interpolating",
     "that third difference while the latent moves in a straight line over the sphere from one random clip's to "
     "another's in 100 control steps, over its mean in a second before and a second after; 1 is as smooth as the "
     "motions",
     "ours", ""},
    {"interpolation_stays_up", "stays up while interpolating", "share of those 7 s without a fall", "ours", ""},
    {"body_distance", "distance to the clip by body, m",
     "mean distance of each body to where the clip has it, seen from below the root along its heading, in windows of "
     "half "
     "a second at the clip's nearest stretch",
     "ours", ""},
    {"styled_heading.heading_cosine", "heading",
     "cosine between the direction asked for, drawn anew from all round every 5 s, and the root's movement over the "
     "last "
     "half second, without the 1.5 s after each new direction in which a person turns half round; mean over episodes "
     "of "
     "15 s, what follows a fall counts 0",
     "Tessler et al. 2023, table of styled heading", "0.91 to 0.92"},
    {"styled_heading.heading_cosine_with_turns", "heading, turns counted", "the same of all 15 s", "ours", ""},
    {"styled_heading.style_score", "style",
     "max over windows of the requested clip of (cos(z, z of the window) + 1) / 2, mean over decisions",
     "Tessler et al. 2023, table of styled heading", "0.81 to 1.00"},
    {"styled_heading.speed_error", "speed error, m/s",
     "mean absolute difference from the speed asked for, in the second half of each 5 s", "ours", ""},
    {"state_machines.strike.strict", "strikes the pillar down",
     "share of characters that approach a pillar 10 m away in a style and strike it down without a fall, within 10 s "
     "and 1.2 times what the way takes at the style's speed",
     "Tessler et al. 2023, table of state machines, with falls counted", "0.96 to 1.00"},
    {"state_machines.strike.loose", "the same, falls allowed", "as the reference counts", "", "0.96 to 1.00"},
    {"state_machines.location.strict", "reaches the place",
     "share that is within 1 m of a random place within +-10 m and slower than 0.5 m/s for half a second, without a "
     "fall, within the same time",
     "Tessler et al. 2023, table of state machines, stricter", "0.96 to 1.00"},
    {"state_machines.location.loose", "the same by the reference's rule",
     "within 1 m with a squared displacement of a step over dt below 0.5; falls do not count", "", "0.96 to 1.00"},
    {"transitions.success", "transitions between clips",
     "share of ordered pairs of clips where, after 2 s of the one, the other is asked for and within 3 s nothing "
     "falls, "
     "and from 1 s on the motion is nearer to the new clip than to the old one (or they are near duplicates)",
     "ours", ""},
};

// A measure's number as people read it, its interval and its episodes.
struct Row {
  const MeasureDefinition* definition = nullptr;
  std::string value, interval, beside;
  int count = 0;
};

const MeasureDefinition& definition(std::string_view key) {
  const auto found = std::ranges::find(kDefinitions, key, [](const auto& d) { return std::string_view(d.key); });
  if (found == std::end(kDefinitions)) fail("report: there is no measure `{}`", key);
  return *found;
}

std::vector<Row> rows(const PaperMeasures& m, const ReportContext& context) {
  std::vector<Row> out;
  const auto number = [&](const char* key, double value, const std::string& beside = "") {
    out.push_back({&definition(key), fmt::format("{:.3f}", value), "", beside, 0});
  };
  const auto share = [&](const char* key, const Estimate& e, const std::string& beside = "") {
    out.push_back({&definition(key), fmt::format("{:.1f} %", 100 * e.value),
                   fmt::format("{:.1f} to {:.1f}", 100 * e.low, 100 * e.high), beside, e.count});
  };
  const auto mean = [&](const char* key, const Estimate& e, const std::string& beside = "") {
    out.push_back({&definition(key), fmt::format("{:.2f}", e.value), fmt::format("{:.2f} to {:.2f}", e.low, e.high),
                   beside, e.count});
  };
  if (m.fisher)
    number("fisher", *m.fisher);
  else
    out.push_back({&definition("fisher"), "none", "", "no encoder beside the policy", 0});
  number("inception", m.inception, fmt::format("of {} classes", m.classes));
  number("inception_of_clips", m.inception_of_clips);
  share("controllability.classifier_top1", m.classifier_top1, fmt::format("chance {:.1f} %", 100 * m.chance));
  share("controllability.classifier_top3", m.classifier_top3);
  share("controllability.nearest_clip", m.nearest_clip);
  number("classifier.held_out_accuracy", m.classifier_held_out);
  number("classifier.standing_still_named_right", m.still_named_right);
  share("stays_up", m.stays_up);
  share("get_up.within_4s", m.gets_up_within_4s);
  mean("get_up.mean_s", m.gets_up_after_s);
  const PaperMeasureSettings& s = context.settings;
  share("push_recovery.push", m.push_recovery, fmt::format("by {:.1f} m/s", s.push_speed));
  share("push_recovery.box", m.box_recovery, fmt::format("{:.1f} kg at {:.1f} m/s", s.box_mass, s.box_speed));
  number("foot_slide", m.foot_slide);
  number("foot_slide_of_clips", m.foot_slide_of_clips);
  number("jerk_ratio", m.jerk_ratio);
  mean("interpolation_smoothness", m.interpolation_smoothness);
  share("interpolation_stays_up", m.interpolation_stays_up);
  const double all = std::accumulate(m.body_distance.begin(), m.body_distance.end(), 0.0);
  number("body_distance", m.body_distance.empty() ? 0.0 : all / static_cast<double>(m.body_distance.size()),
         "mean of the bodies");
  if (context.directed) {
    for (const StyledHeading& h : context.directed->styled_heading) {
      mean("styled_heading.heading_cosine", h.heading_cosine, h.style);
      mean("styled_heading.heading_cosine_with_turns", h.heading_cosine_with_turns, h.style);
      number("styled_heading.style_score", h.style_score, h.style);
      number("styled_heading.speed_error", h.speed_error, fmt::format("{} at {:.2f} m/s", h.style, h.speed_asked));
    }
    const auto cells = [&](const std::string& key, const std::vector<MachineCell>& all) {
      for (const MachineCell& cell : all) {
        const std::string beside = fmt::format("{}, {}", cell.style, cell.act);
        share((key + ".strict").c_str(), cell.strict, beside), share((key + ".loose").c_str(), cell.loose, beside);
      }
    };
    cells("state_machines.strike", context.directed->strike);
    cells("state_machines.location", context.directed->location);
    share("transitions.success", context.directed->transitions,
          fmt::format("{:.1f} % stay up", 100 * context.directed->transitions_stay_up.value));
  }
  return out;
}

std::string base64(const std::string& bytes) {
  namespace codec = boost::beast::detail::base64;
  std::string out(codec::encoded_size(bytes.size()), '\0');
  out.resize(codec::encode(out.data(), bytes.data(), bytes.size()));
  return out;
}

}  // namespace

std::span<const MeasureDefinition> measure_definitions() { return kDefinitions; }

nlohmann::ordered_json report_json(const PaperMeasures& m, const ReportContext& context) {
  using Json = nlohmann::ordered_json;
  const PaperMeasureSettings& s = context.settings;
  const auto interval = [](const Estimate& e) { return Json{e.low, e.high}; };
  Json out;
  out["fisher"] = m.fisher ? Json(*m.fisher) : Json(nullptr);
  out["inception"] = m.inception, out["inception_of_clips"] = m.inception_of_clips;
  out["controllability"] = {{"classifier_top1", m.classifier_top1.value},
                            {"classifier_top3", m.classifier_top3.value},
                            {"nearest_clip", m.nearest_clip.value},
                            {"chance", m.chance}};
  out["classifier"] = {{"held_out_accuracy", m.classifier_held_out},
                       {"standing_still_named_right", m.still_named_right}};
  out["stays_up"] = m.stays_up.value;
  out["get_up"] = {{"within_4s", m.gets_up_within_4s.value}, {"mean_s", m.gets_up_after_s.value}};
  out["push_recovery"] = {{"push", m.push_recovery.value},
                          {"push_m_per_s", s.push_speed},
                          {"box", m.box_recovery.value},
                          {"box_kg", s.box_mass},
                          {"box_m_per_s", s.box_speed}};
  out["foot_slide"] = m.foot_slide, out["foot_slide_of_clips"] = m.foot_slide_of_clips;
  out["jerk_ratio"] = m.jerk_ratio;
  out["interpolation_smoothness"] = m.interpolation_smoothness.value;
  out["interpolation_stays_up"] = m.interpolation_stays_up.value;
  for (size_t b = 0; b < m.bodies.size(); ++b) out["body_distance"][m.bodies[b]] = m.body_distance[b];
  out["confidence_95"] = {{"classifier_top1", interval(m.classifier_top1)},
                          {"classifier_top3", interval(m.classifier_top3)},
                          {"nearest_clip", interval(m.nearest_clip)},
                          {"stays_up", interval(m.stays_up)},
                          {"get_up_within_4s", interval(m.gets_up_within_4s)},
                          {"get_up_mean_s", interval(m.gets_up_after_s)},
                          {"push", interval(m.push_recovery)},
                          {"box", interval(m.box_recovery)},
                          {"interpolation_smoothness", interval(m.interpolation_smoothness)},
                          {"interpolation_stays_up", interval(m.interpolation_stays_up)}};
  if (const auto& d = context.directed) {
    out["styled_heading"] = Json::array();
    for (const StyledHeading& h : d->styled_heading)
      out["styled_heading"].push_back({{"style", h.style},
                                       {"style_score", h.style_score},
                                       {"heading_cosine", h.heading_cosine.value},
                                       {"heading_cosine_95", interval(h.heading_cosine)},
                                       {"heading_cosine_with_turns", h.heading_cosine_with_turns.value},
                                       {"speed_asked", h.speed_asked},
                                       {"speed_error", h.speed_error},
                                       {"stays_up", h.stays_up.value},
                                       {"episodes", h.heading_cosine.count}});
    const auto cells = [&interval](const std::vector<MachineCell>& all) {
      Json list = Json::array();
      for (const MachineCell& cell : all)
        list.push_back({{"style", cell.style},
                        {"act", cell.act},
                        {"loose", cell.loose.value},
                        {"strict", cell.strict.value},
                        {"strict_95", interval(cell.strict)},
                        {"episodes", cell.strict.count}});
      return list;
    };
    out["state_machines"] = {{"strike", cells(d->strike)}, {"location", cells(d->location)}};
    out["transitions"] = {{"success", d->transitions.value},
                          {"success_95", interval(d->transitions)},
                          {"stays_up", d->transitions_stay_up.value},
                          {"pairs", d->transitions.count}};
    for (const auto& [name, good] : d->worst_transitions) out["transitions"]["worst_into"][name] = good;
  }
  out["paper"] = {{"fisher", 0.23}, {"inception", 19.8}, {"controllability_by_people", 0.78}};
  out["near_duplicates"] = m.near_duplicates;
  out["classes"] = m.classes;
  for (size_t c = 0; c < m.clips.size(); ++c)
    out["clips"].push_back({{"name", m.clips[c]}, {"named_right", m.named_right[c]}, {"stays_up", m.clip_stays_up[c]}});
  out["episodes"] = {{"motions", m.stays_up.count},
                     {"falls", m.gets_up_within_4s.count},
                     {"pushes", m.push_recovery.count},
                     {"boxes", m.box_recovery.count},
                     {"interpolations", m.interpolation_stays_up.count}};
  for (const MeasureDefinition& d : kDefinitions) out["definitions"][d.key] = {{"what", d.what}, {"source", d.source}};
  out["seed"] = s.seed, out["sim"] = context.backend;
  return out;
}

std::string report_text(const PaperMeasures& m, const ReportContext& context) {
  std::string out;
  for (const Row& row : rows(m, context)) {
    out += fmt::format("{:45} {:>9}", row.definition->name, row.value);
    if (!row.interval.empty()) out += fmt::format("  ({}; {})", row.interval, row.count);
    if (!row.beside.empty()) out += "  " + row.beside;
    if (*row.definition->paper) out += fmt::format("  paper {}", row.definition->paper);
    out += '\n';
  }
  for (const auto& group : m.near_duplicates) out += fmt::format("counted as one: {}\n", fmt::join(group, ", "));
  std::string wrong;
  for (size_t c = 0; c < m.clips.size(); ++c)
    if (m.named_right[c] < 0.5) wrong += fmt::format(" {} {:.0f} %", m.clips[c], 100 * m.named_right[c]);
  if (!wrong.empty()) out += fmt::format("named right in less than half of their episodes:{}\n", wrong);
  return out;
}

void draw_report(const PaperMeasures& m, const std::filesystem::path& path) {
  std::vector<AnyChart> charts;
  const std::vector<std::pair<const char*, const Estimate*>> shares = {{"named right", &m.classifier_top1},
                                                                       {"first three", &m.classifier_top3},
                                                                       {"nearest clip", &m.nearest_clip},
                                                                       {"stays up", &m.stays_up},
                                                                       {"gets up in 4 s", &m.gets_up_within_4s},
                                                                       {"push", &m.push_recovery},
                                                                       {"box", &m.box_recovery},
                                                                       {"interpolating", &m.interpolation_stays_up}};
  BarChart of_shares{"Shares of episodes, 95 % intervals", "share", {}, {}, {}, {}, m.chance, "chance of naming"};
  for (const auto& [name, e] : shares) {
    of_shares.labels.emplace_back(name), of_shares.values.push_back(e->value);
    of_shares.low.push_back(e->low), of_shares.high.push_back(e->high);
  }
  charts.emplace_back(std::move(of_shares));

  HeatMap named{"What the classifier takes the motions for", "asked for", "taken for", m.clips, m.class_names, {}};
  for (Eigen::Index r = 0; r < m.named_as.rows(); ++r)
    for (Eigen::Index c = 0; c < m.named_as.cols(); ++c) named.values.push_back(m.named_as(r, c));
  charts.emplace_back(std::move(named));
  charts.emplace_back(BarChart{"Stays up for 10 s, by clip", "share", m.clips, m.clip_stays_up, {}, {}, {}, ""});
  charts.emplace_back(BarChart{"Distance to the clip, by body", "m", m.bodies, m.body_distance, {}, {}, {}, ""});

  Chart up{"Getting up", "seconds after the fall", "share that is up", {}, false};
  Curve& curve = up.curves.emplace_back();
  std::vector<double> seconds = m.get_up_seconds;
  std::ranges::sort(seconds);
  const double all = std::max(m.gets_up_within_4s.count, 1);
  for (double t = 0.0; t <= 8.01; t += 0.1) {
    curve.x.push_back(t);
    curve.y.push_back(static_cast<double>(std::ranges::upper_bound(seconds, t) - seconds.begin()) / all);
  }
  charts.emplace_back(std::move(up));
  charts.emplace_back(BarChart{"Beside the paper's (on other clips) or the clips' own",
                               "",
                               {"Fisher", "paper", "foot slide m/s", "clips", "jerk", "clips'"},
                               {m.fisher.value_or(0.0), 0.23, m.foot_slide, m.foot_slide_of_clips, m.jerk_ratio, 1.0},
                               {},
                               {},
                               {},
                               ""});
  save_charts(charts, 2, path, 900, 620);
}

void write_report_page(const PaperMeasures& m, const ReportContext& context, const std::filesystem::path& path) {
  // the picture goes into the page
  auto picture = path;
  picture += ".charts.png";
  draw_report(m, picture);
  const std::string png = base64(read_file(picture, size_t{1} << 28));
  std::filesystem::remove(picture);

  std::string html = fmt::format(
      "<!doctype html>\n<html lang=\"en\"><meta charset=\"utf-8\"><meta name=\"viewport\" "
      "content=\"width=device-width\">\n<title>CALM: {0}</title>\n<style>\n"
      ":root {{ color-scheme: light dark; }}\n"
      "body {{ font: 15px/1.5 system-ui, sans-serif; max-width: 78rem; margin: 2rem auto; padding: 0 1rem; }}\n"
      "table {{ border-collapse: collapse; width: 100%; }}\n"
      "th, td {{ text-align: left; vertical-align: top; padding: .35rem .7rem; border-bottom: 1px solid #8884; }}\n"
      "td.n {{ text-align: right; white-space: nowrap; font-variant-numeric: tabular-nums; }}\n"
      "td.w {{ font-size: .85em; opacity: .8; }}\nimg {{ max-width: 100%; background: #fff; }}\n</style>\n"
      "<h1>{0}</h1>\n<p>{1} classes out of {2} clips; simulation <code>{3}</code>, seed {4}. Rollouts act without "
      "noise. "
      "Intervals are of 95 % (Wilson's for shares).</p>\n"
      "<table><tr><th>measure<th>value<th>interval<th>episodes<th>paper<th>how it is measured\n",
      escape_markup(context.policy), m.classes, m.clips.size(), escape_markup(context.backend), context.settings.seed);
  for (const Row& row : rows(m, context))
    html += fmt::format(
        "<tr><td>{}{}<td class=\"n\">{}<td class=\"n\">{}<td class=\"n\">{}<td class=\"n\">{}<td class=\"w\">{}{}\n",
        row.definition->name, row.beside.empty() ? "" : ", " + row.beside, row.value, row.interval,
        row.count > 0 ? std::to_string(row.count) : "", row.definition->paper, row.definition->what,
        *row.definition->source ? fmt::format(" ({})", row.definition->source) : "");
  html += "</table>\n<p><img alt=\"charts of the measures\" src=\"data:image/png;base64," + png + "\"></p>\n";
  html += "<h2>Clips</h2>\n<table><tr><th>clip<th>named right<th>stays up<th>taken for\n";
  for (size_t c = 0; c < m.clips.size(); ++c) {
    Eigen::Index most = 0;
    m.named_as.row(static_cast<Eigen::Index>(c)).maxCoeff(&most);
    html += fmt::format("<tr><td>{}<td class=\"n\">{:.0f} %<td class=\"n\">{:.0f} %<td>{}\n", escape_markup(m.clips[c]),
                        100 * m.named_right[c], 100 * m.clip_stays_up[c],
                        escape_markup(m.class_names[static_cast<size_t>(most)]));
  }
  html += "</table>\n";
  for (const auto& group : m.near_duplicates)
    html += fmt::format("<p>Near duplicates, counted as one: {}.</p>\n",
                        escape_markup(fmt::format("{}", fmt::join(group, ", "))));
  write_file_atomic(path, html + "</html>\n");
}

}  // namespace calm
