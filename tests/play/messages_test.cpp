#include "play/messages.h"

#include <gmock/gmock.h>

#include <cstring>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "play/play_fixture.h"

namespace calm {
namespace {

using nlohmann::json;
using testing::HasSubstr;

class MessagesTest : public PlayTest {};

TEST_F(MessagesTest, SceneDescribesEveryShapeAndClip) {
  const auto session = make_session();
  const json scene = json::parse(scene_message(*session));
  EXPECT_EQ(scene["type"], "scene");
  EXPECT_EQ(scene["character"], character.name);
  ASSERT_EQ(scene["bodies"].size(), character.bodies.size());
  size_t shapes = 0;
  for (const auto& body : scene["bodies"]) shapes += body["shapes"].size();
  EXPECT_EQ(shapes, character.shapes.size());
  const Shape& first = character.shapes[0];
  const json& shown = scene["bodies"][first.body]["shapes"][0];
  EXPECT_EQ(shown["size"][0], first.size[0]);
  EXPECT_EQ(shown["rot"][3], first.rot.w());
  EXPECT_EQ(shown["rgba"].size(), 4u);
  EXPECT_EQ(scene["clips"].size(), policy.latents.size());
  EXPECT_EQ(scene["clips"][0]["name"], "stand");
  EXPECT_EQ(scene["clips"][0]["tags"][0], "rest");
  EXPECT_EQ(scene["control_rate"], 30.0f);
}

TEST_F(MessagesTest, NamesThatAreNotUtf8DoNotStopTheScene) {
  policy.latents[0].name = "st\xffnd";
  EXPECT_THAT(json::parse(scene_message(*make_session()))["clips"][0]["name"].get<std::string>(), HasSubstr("st"));
}

template <class T>
T read(const std::string& bytes, size_t offset) {
  T value;
  std::memcpy(&value, bytes.data() + offset, sizeof value);
  return value;
}

TEST_F(MessagesTest, FrameHoldsThePose) {
  const auto session = make_session();
  for (int i = 0; i < 4; ++i) session->tick();
  session->select_clip(1);
  session->set_paused(true);
  const std::string frame = encode_frame(*session);
  const size_t bodies = character.bodies.size();
  ASSERT_EQ(frame.size(), kFrameHeaderSize + bodies * 8 * sizeof(float));
  EXPECT_EQ(frame.substr(0, 4), "CALM");
  EXPECT_EQ(read<uint16_t>(frame, 4), kProtocolVersion);
  EXPECT_EQ(read<uint16_t>(frame, 6), bodies);
  EXPECT_EQ(read<uint32_t>(frame, 8), 4u);
  EXPECT_EQ(read<uint32_t>(frame, 12), session->epoch());
  EXPECT_EQ(read<uint32_t>(frame, 16), 1u);
  EXPECT_EQ(read<float>(frame, 20), session->statistics().root_speed);
  EXPECT_NEAR(read<double>(frame, 24), 4.0 / 30.0, 1e-9);
  EXPECT_EQ(read<float>(frame, 32), session->statistics().root_height);
  EXPECT_EQ(read<int32_t>(frame, 36), 1);
  const size_t last = bodies - 1;
  EXPECT_EQ(read<float>(frame, kFrameHeaderSize + last * 28 + 8), session->state().body_pos[3 * last + 2]);
  EXPECT_EQ(read<float>(frame, kFrameHeaderSize + last * 28 + 24), session->state().body_rot[4 * last + 3]);
  // a standing character's feet carry it
  const float carried =
      read<float>(frame, kFrameHeaderSize + bodies * 28 + 4 * static_cast<size_t>(character.feet[0])) +
      read<float>(frame, kFrameHeaderSize + bodies * 28 + 4 * static_cast<size_t>(character.feet[1]));
  EXPECT_GT(carried, 50.0f);
}

TEST_F(MessagesTest, FrameAndStatusTellOfTheMachine) {
  const auto session = make_directed_session();
  const json scene = json::parse(scene_message(*session));
  EXPECT_EQ(scene["machines"], json({"act", "strike"}));
  EXPECT_EQ(scene["target"]["kind"], "box");
  EXPECT_TRUE(json::parse(status_message(*session))["machine"].is_null());
  const size_t without = encode_frame(*session).size();
  for (const auto& [name, flag] : {std::pair{"act", 8u}, {"strike", 4u}}) {
    apply_message(parse_client_message(fmt::format(R"({{"type":"machine","machine":"{}"}})", name)), *session);
    const json status = json::parse(status_message(*session));
    EXPECT_EQ(status["machine"], name);
    EXPECT_EQ(status["state"], "begin");
    const std::string frame = encode_frame(*session);
    ASSERT_EQ(frame.size(), without + 28);
    EXPECT_EQ(read<uint32_t>(frame, 16), flag);
    EXPECT_EQ(read<float>(frame, without), session->target().pos.x());
    EXPECT_EQ(read<float>(frame, without + 24), session->target().rot.w());
  }
  EXPECT_THROW(apply_message(parse_client_message(R"({"type":"machine","machine":"fly"})"), *session), Error);
}

TEST_F(MessagesTest, CommandsDoWhatTheySay) {
  const auto session = make_session();
  auto tell = [&](const char* text) { apply_message(parse_client_message(text), *session); };
  tell(R"({"type":"command","clip":"stand"})");
  EXPECT_EQ(session->clip(), 0);
  tell(R"({"type":"pause"})");
  EXPECT_TRUE(session->paused());
  tell(R"({"type":"pause","paused":true})");
  EXPECT_TRUE(session->paused());
  tell(R"({"type":"pause"})");
  EXPECT_FALSE(session->paused());
  tell(R"({"type":"step"})");
  EXPECT_EQ(session->statistics().ticks, 1);
  tell(R"({"type":"reset"})");
  EXPECT_EQ(session->statistics().resets, 1);
  tell(R"({"type":"auto_reset","on":true})");
  EXPECT_TRUE(session->auto_reset());
  EXPECT_TRUE(json::parse(status_message(*session))["auto_reset"]);
}

TEST_F(MessagesTest, DamagedMessagesAreErrors) {
  const std::string deep(4000, '[');
  const std::string texts[] = {"",
                               "{",
                               "null",
                               "[]",
                               "\"x\"",
                               deep,
                               "\xff\xfe",
                               R"({})",
                               R"({"type":3})",
                               R"({"type":"dance"})",
                               R"({"type":"command"})",
                               R"({"type":"command","clip":[1]})",
                               R"({"type":"machine"})",
                               R"({"type":"pause","paused":1})",
                               R"({"type":"auto_reset"})",
                               R"({"type":"ping"})"};
  for (const std::string& text : texts) EXPECT_THROW(parse_client_message(text), Error) << text;
}

}  // namespace
}  // namespace calm
