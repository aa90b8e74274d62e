// The models that a test is given.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

// A model file, or all model files of a directory.
inline std::vector<std::string> model_files(const std::string& path) {
  if (!std::filesystem::is_directory(path)) return {path};
  std::vector<std::string> out;
  for (const auto& entry : std::filesystem::directory_iterator(path)) {
    if (entry.path().extension() == ".dpa2") out.push_back(entry.path().string());
  }
  return out;
}
