// The one exception of the core: a sentence that names the thing and the remedy.
#pragma once

#include <stdexcept>
#include <string>
#include <utility>

namespace dpa2md {

class Error : public std::runtime_error {
 public:
  explicit Error(const std::string& sentence) : Error(sentence, -1, -1) {}
  // About an atom or a frame, counted from 0 as the caller passed them; -1: none. In the sentence "{atom}"
  // stands for the atom's name, and "{of}" for " of " and the frame's name.
  Error(const std::string& sentence, int atom, int frame)
      : std::runtime_error(filled(sentence,
                                  "atom " + std::to_string(atom) + (frame < 0 ? "" : of_number(frame)),
                                  of_number(frame))),
        sentence_(sentence),
        atom_(atom),
        frame_(frame) {}

  const std::string& sentence() const { return sentence_; }
  int atom() const { return atom_; }
  int frame() const { return frame_; }
  // The sentence with a caller's own names: "the atom with ID 7", " of structure 3" (or nothing).
  std::string named(const std::string& atom, const std::string& of) const {
    return filled(sentence_, atom, of);
  }

 private:
  static std::string of_number(int frame) { return " of frame " + std::to_string(frame); }
  static std::string filled(std::string sentence, const std::string& atom, const std::string& of) {
    for (const auto& [mark, name] : {std::pair{"{atom}", &atom}, std::pair{"{of}", &of}}) {
      const std::size_t at = sentence.find(mark);
      if (at != std::string::npos) sentence.replace(at, std::string(mark).size(), *name);
    }
    return sentence;
  }

  std::string sentence_;
  int atom_, frame_;
};

}  // namespace dpa2md
