#include "motion/dataset.h"

#include "motion/library.h"
#include "motion/motion_test_support.h"

namespace calm {
namespace {

using testing::HasSubstr;

TEST(Dataset, ReadsWhatAListSays) {
  const TemporaryFolder folder;
  const auto list = folder.write("list.yaml", R"(character: human.xml
motions:
  - {file: "builtin:stand", weight: 2, tags: [calm, still]}
  - file: builtin:raise_arms
    name: up
    start: 1.0
    end: 2.0
    fps: 60
  - {file: "builtin:wave", mirror: true}
)");
  const std::vector<Clip> clips = load_motions(human(), list.string());
  ASSERT_EQ(clips.size(), 3u);
  EXPECT_EQ(clips[0].name, "stand");
  EXPECT_EQ(clips[0].weight, 2.0f);
  EXPECT_THAT(clips[0].tags, testing::Contains("still"));
  EXPECT_EQ(clips[1].name, "up");
  EXPECT_EQ(clips[1].fps, 60.0f);
  EXPECT_NEAR(clips[1].length(), 1.0f, 1e-5f);
  EXPECT_EQ(clips[2].name, "wave_mirrored");
  MotionLibrary(human(), clips);
}

TEST(Dataset, ErrorsNameTheListAndTheLine) {
  const TemporaryFolder folder;
  const auto error = [&](const std::string& text) {
    const auto list = folder.write("list.yaml", text);
    return error_of([&] { load_motions(human(), list.string()); });
  };
  EXPECT_THAT(error("motions:\n  - file: builtin:stand\n    wieght: 1\n"),
              HasSubstr("list.yaml:3: unknown key `wieght`"));
  EXPECT_THAT(error("motions:\n  - file: builtin:stand\n    wieght: 1\n"), HasSubstr("`weight`"));
  EXPECT_THAT(error("motion:\n  - file: a.npy\n"), HasSubstr("did you mean `motions`"));
  EXPECT_THAT(error("motions:\n  - file: builtin:stand\n  - file: gone.npy\n"), HasSubstr("list.yaml:3: "));
  EXPECT_THAT(error("motions:\n  - file: builtin:stand\n  - file: gone.npy\n"), HasSubstr("gone.npy: no such file"));
  EXPECT_THAT(error("motions:\n  - file: builtin:stand\n    weight: much\n"), HasSubstr("`weight` cannot be `much`"));
  EXPECT_THAT(error("motions:\n  - file: builtin:stand\n    weight: -1\n"), HasSubstr("at least 0"));
  EXPECT_THAT(error("motions:\n  - file: builtin:stand\n  - file: builtin:stand\n"), HasSubstr("list.yaml:3: "));
  EXPECT_THAT(error("motions:\n  - file: builtin:fly\n"), HasSubstr("there are stand"));
  EXPECT_THAT(error("motions:\n  - file: builtin:stand\n    start: 2\n    end: 1\n"), HasSubstr("later than"));
  EXPECT_THAT(error("motions:\n  - weight: 1\n"), HasSubstr("names no `file`"));
  EXPECT_THAT(error("motions:\n  - file: a.fbx\n"), HasSubstr(".npy, .bvh and .calmlib"));
  EXPECT_THAT(error("motions: []\n"), HasSubstr("no `motions:` list"));
  EXPECT_THAT(error("- a\n- b\n"), HasSubstr("expected `name: value`"));
  EXPECT_THAT(error("character: knight.xml\nmotions:\n  - file: builtin:stand\n"), HasSubstr("not for human.xml"));
  EXPECT_THAT(error("root: ${CALM_NO_SUCH_VARIABLE}/a\nmotions:\n  - file: a.npy\n"),
              HasSubstr("CALM_NO_SUCH_VARIABLE"));
}

TEST(Dataset, ExpandsTheEnvironmentInRoot) {
  const TemporaryFolder folder;
  ASSERT_EQ(setenv("CALM_TEST_ROOT", "/some/place", 1), 0);
  const auto list =
      folder.write("list.yaml", "root: ${CALM_TEST_ROOT}/deep\nmotions:\n  - file: a/b.npy\n  - file: /c.npy\n");
  const Dataset dataset = load_dataset(list);
  EXPECT_EQ(dataset.entries[0].file, "/some/place/deep/a/b.npy");
  EXPECT_EQ(dataset.entries[0].name, "b");
  EXPECT_EQ(dataset.entries[1].file, "/c.npy");
}

TEST(Dataset, ReadsTheReferencesOwnLists) {
  const auto folder = motions_folder() / "noncommercial/reallusion";
  if (!std::filesystem::exists(folder)) GTEST_SKIP() << "no folder " << folder << "; set MOTIONS_DIR";
  int lists = 0;
  for (const auto& file : std::filesystem::directory_iterator(folder)) {
    if (file.path().extension() != ".yaml") continue;
    ++lists;
    const Dataset dataset = load_dataset(file.path());
    std::vector<std::string> warnings;
    const MotionLibrary library(knight(), load_dataset_clips(knight(), dataset, &warnings));
    EXPECT_EQ(library.num_clips(), static_cast<int>(dataset.entries.size()));
    EXPECT_THAT(warnings, testing::IsEmpty());
  }
  EXPECT_EQ(lists, 3);
}

}  // namespace
}  // namespace calm
