// What measure_as_the_paper found, for people and programs: text, JSON, a page, a picture.
#pragma once

#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>
#include <span>
#include <string>

#include "learn/directed_measures.h"
#include "learn/paper_measures.h"

namespace calm {

// What a number of the report is.
struct MeasureDefinition {
  const char* key;     // as in the JSON, a dot between levels
  const char* name;    // for people
  const char* what;    // how it is measured
  const char* source;  // where it comes from
  const char* paper;   // the paper's number, on other clips; may be empty
};
std::span<const MeasureDefinition> measure_definitions();

// What the report says beside the measures.
struct ReportContext {
  std::string policy, backend;
  PaperMeasureSettings settings;
  std::optional<DirectedMeasures> directed;  // where there is a high-level policy
};

// Keys: those of the definitions, `confidence_95`, `definitions`, `episodes`, `clips`, `near_duplicates`, ...
nlohmann::ordered_json report_json(const PaperMeasures& measures, const ReportContext& context);

std::string report_text(const PaperMeasures& measures, const ReportContext& context);

// Charts of the measures as PNG. Error where gnuplot is missing or the file cannot be written.
void draw_report(const PaperMeasures& measures, const std::filesystem::path& path);

// One HTML file that needs no other: the table of measures with their definitions, the charts, the clips.
void write_report_page(const PaperMeasures& measures, const ReportContext& context, const std::filesystem::path& path);

}  // namespace calm
