// Files of prepared weights through drover.h: the same numbers as from memory, whatever lies in the folder, however
// many load at the same time, and whenever a load ends.
#include <dirent.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <chrono>
#include <string>
#include <thread>

#include "programs.h"

namespace {

using Bytes = std::vector<uint8_t>;

void write_file(const std::string& path, const Bytes& bytes) {
  std::FILE* file = std::fopen(path.c_str(), "wb");
  CHECK(file != nullptr, "%s", path.c_str());
  if (file == nullptr) return;
  if (!bytes.empty()) CHECK(std::fwrite(bytes.data(), 1, bytes.size(), file) == bytes.size(), "%s", path.c_str());
  std::fclose(file);
}

Bytes read_file(const std::string& path) {
  Bytes bytes;
  std::FILE* file = std::fopen(path.c_str(), "rb");
  if (file == nullptr) return bytes;
  uint8_t buffer[4096];
  for (size_t size; (size = std::fread(buffer, 1, sizeof buffer, file)) > 0;) {
    bytes.insert(bytes.end(), buffer, buffer + size);
  }
  std::fclose(file);
  return bytes;
}

std::vector<std::string> names_in(const std::string& folder) {
  std::vector<std::string> names;
  DIR* entries = opendir(folder.c_str());
  if (entries == nullptr) return names;
  while (const dirent* entry = readdir(entries)) {
    if (entry->d_name[0] != '.') names.push_back(entry->d_name);
  }
  closedir(entries);
  return names;
}

// The same time for every file of weights: what distinguishes them is their content.
void set_time(const std::string& path) {
  const timespec times[2] = {{1000, 0}, {1000, 0}};
  CHECK(utimensat(AT_FDCWD, path.c_str(), times, 0) == 0, "%s", path.c_str());
}

// A folder that goes with all that is in it.
struct Folder {
  std::string path;
  Folder() {
    char name[] = "/tmp/drover-prepared-XXXXXX";
    CHECK(mkdtemp(name) != nullptr, "no folder");
    path = name;
  }
  ~Folder() {
    for (const std::string& name : names_in(path)) {
      if (unlink((path + "/" + name).c_str()) != 0) rmdir((path + "/" + name).c_str());
    }
    rmdir(path.c_str());
  }
  Folder(const Folder&) = delete;
  Folder& operator=(const Folder&) = delete;
};

// Weights in a file, and programs that use it.
struct Source {
  Everything everything;
  Words words;
  std::string path;
  explicit Source(const Folder& folder, uint64_t seed) : everything(seed), words(everything.program.words()) {
    path = folder.path + "/weights-" + std::to_string(seed);
    write_file(path, everything.weights.bytes);
    set_time(path);
  }

  int load_from(const char* cache, drover_program** out, drover_error* error, uint32_t verify = 0, uint64_t budget = 0,
                const int32_t* cancel = nullptr) const {
    drover_region* region = nullptr;
    int code = drover_region_map(path.c_str(), everything.weights.bytes.size(), &region, error);
    if (code != DROVER_OK) return code;
    drover_load_options options = load_options();
    options.prepared_cache = cache;
    options.verify_weights = verify;
    options.memory_budget = budget;
    options.cancel = cancel;
    code = load(words, region, &options, out, error);
    drover_region_release(region);
    return code;
  }

  // Logits and products of a step. Empty when anything fails.
  Words results(const char* cache, uint32_t verify = 0) const {
    drover_program* program = nullptr;
    drover_error error{};
    if (load_from(cache, &program, &error, verify) != DROVER_OK) {
      CHECK(false, "%s", error.message);
      return {};
    }
    Random random(5);
    CHECK(run(program, everything.step(0, 30, random).words(), &error) == DROVER_OK, "%s", error.message);
    Words all(2 * Everything::kVocabulary + 400);
    const uint64_t first = uint64_t{2} * Everything::kVocabulary;
    CHECK(drover_program_read(program, everything.logits, 0, 2, all.data(), first * 4, &error) == DROVER_OK, "%s",
          error.message);
    CHECK(drover_program_read(program, everything.wide, 0, 20, all.data() + first, 1600, &error) == DROVER_OK, "%s",
          error.message);
    drover_program_release(program);
    return all;
  }
};

// The one file of a folder.
std::string only_file(const Folder& folder) {
  const std::vector<std::string> names = names_in(folder.path);
  CHECK(names.size() == 1, "%zu files", names.size());
  const bool named = names.size() == 1 && names[0].size() > 8 && names[0].rfind(".weights") == names[0].size() - 8;
  CHECK(named, "another name");
  return folder.path + "/" + (names.empty() ? "" : names[0]);
}

void check_same_numbers() {
  Folder sources, cache;
  const Source one(sources, 1), two(sources, 2);
  const Words right = one.results(nullptr);
  CHECK(right == one.results(cache.path.c_str()), "written: other numbers");
  const std::string file = only_file(cache);
  const Bytes content = read_file(file);
  CHECK(right == one.results(cache.path.c_str()), "mapped: other numbers");
  CHECK(right == one.results(cache.path.c_str(), 1), "compared: other numbers");
  CHECK(content == read_file(file), "a load has changed the file");
  // Another file of the same size, time and shapes.
  CHECK(two.results(nullptr) == two.results(cache.path.c_str()), "another model: other numbers");
  CHECK(names_in(cache.path).size() == 2, "two models, %zu files", names_in(cache.path).size());
}

void check_memory() {
  Folder sources, cache;
  const Source source(sources, 3);
  drover_program* program = nullptr;
  drover_error error{};
  CHECK(source.load_from(nullptr, &program, &error) == DROVER_OK, "%s", error.message);
  drover_memory in_memory{}, in_file{};
  drover_program_memory(program, &in_memory);
  drover_program_release(program);
  const uint64_t others = in_memory.activations + in_memory.kv + in_memory.scratch;
  CHECK(in_memory.prepared > 0 && in_memory.prepared_mapped == 0, "in memory");
  CHECK(source.load_from(nullptr, &program, &error, 0, others) == DROVER_MEMORY, "the budget forgets the weights");
  CHECK(source.load_from(cache.path.c_str(), &program, &error) == DROVER_OK, "%s", error.message);
  drover_program_memory(program, &in_file);
  drover_program_release(program);
  CHECK(in_file.prepared == 0 && in_file.prepared_mapped > 0, "in a file");
  CHECK(in_file.activations == in_memory.activations && in_file.kv == in_memory.kv, "other arenas");
  const bool fits = source.load_from(cache.path.c_str(), &program, &error, 0, others) == DROVER_OK;
  CHECK(fits, "a mapped file counts against the budget: %s", error.message);
  if (fits) drover_program_release(program);
}

// Whatever is done to a file, a load gives the right numbers and leaves the right file.
void check_damage() {
  Folder sources, cache;
  const Source source(sources, 4);
  const char* folder = cache.path.c_str();
  const Words right = source.results(folder);
  const std::string file = only_file(cache);
  const Bytes content = read_file(file);
  uint64_t header = 0;
  std::memcpy(&header, content.data() + 16, 8);
  CHECK(header > 0 && header < content.size(), "a header of %llu bytes", static_cast<unsigned long long>(header));
  Random random(6);
  for (uint32_t turn = 0; turn < 200; turn++) {
    Bytes bytes = content;
    switch (turn % 5) {
      case 0:  // a bit of what the header says, and one of all the rest
        bytes[random.below(900)] ^= static_cast<uint8_t>(1 << random.below(8));
        bytes[random.below(static_cast<uint32_t>(header))] ^= static_cast<uint8_t>(1 << random.below(8));
        break;
      case 1:
        bytes.resize(random.below(static_cast<uint32_t>(bytes.size())));
        break;
      case 2:
        bytes.resize(bytes.size() + 1 + random.below(100000));
        break;
      case 3:
        for (uint8_t& byte : bytes) byte = static_cast<uint8_t>(random.next());
        break;
      default:  // a number that would lead out of the file
        const uint64_t wild = turn % 2 == 0 ? ~uint64_t{0} : content.size();
        std::memcpy(bytes.data() + 16 + 8 * random.below(100), &wild, 8);
        std::memcpy(bytes.data() + 8, &wild, 8);
    }
    write_file(file, bytes);
    CHECK(right == source.results(folder), "turn %u: other numbers", turn);
    CHECK(content == read_file(file), "turn %u: the file is not restored", turn);
  }
  // Content that is wrong is found by those that ask for it.
  for (uint32_t turn = 0; turn < 20; turn++) {
    Bytes bytes = content;
    const uint64_t at = header + random.below(static_cast<uint32_t>(content.size() - header - 64));
    bytes[at] ^= 1;
    write_file(file, bytes);
    CHECK(right == source.results(folder, 1), "content %u: other numbers", turn);
    // Bytes between two weights belong to neither.
    const Bytes found = read_file(file);
    CHECK(found == content || found == bytes, "content %u: neither restored nor left", turn);
  }
  // Other things of that name.
  unlink(file.c_str());
  CHECK(mkfifo(file.c_str(), 0600) == 0, "no pipe");
  CHECK(right == source.results(folder), "a pipe");
  unlink(file.c_str());
  CHECK(symlink("/nowhere/at/all", file.c_str()) == 0, "no link");
  CHECK(right == source.results(folder), "a link to nothing");
  CHECK(content == read_file(file), "the link is still there");
  CHECK(chmod(file.c_str(), 0666) == 0, "no mode");
  CHECK(right == source.results(folder), "a file that everybody may write");
  struct stat status;
  CHECK(stat(file.c_str(), &status) == 0 && (status.st_mode & 0777) == 0600, "is used as it is");
  unlink(file.c_str());
  CHECK(mkdir(file.c_str(), 0700) == 0, "no folder");
  drover_program* program = nullptr;
  drover_error error{};
  CHECK(source.load_from(folder, &program, &error) == DROVER_IO, "a folder of that name");
  CHECK(std::strstr(error.message, folder) != nullptr, "%s", error.message);
  rmdir(file.c_str());
  CHECK(names_in(cache.path).empty(), "a draft is left");
  CHECK(right == source.results(folder), "after all that");
}

void check_folders() {
  Folder sources, cache;
  const Source source(sources, 7);
  const auto refused = [&](const char* folder, const char* why) {
    drover_program* program = nullptr;
    drover_error error{};
    CHECK(source.load_from(folder, &program, &error) == DROVER_IO, "%s: %s", folder, why);
    CHECK(std::strstr(error.message, why) != nullptr, "%s", error.message);
  };
  refused("/nowhere/at/all", "not a folder");
  refused("", "not a folder");
  refused(source.path.c_str(), "not a folder");
  CHECK(chmod(cache.path.c_str(), 0707) == 0, "no mode");
  refused(cache.path.c_str(), "everybody");
  CHECK(chmod(cache.path.c_str(), 0700) == 0, "no mode");
  if (geteuid() == 0) {
    CHECK(chown(cache.path.c_str(), 12345, 12345) == 0, "no owner");
    refused(cache.path.c_str(), "another user");
    CHECK(chown(cache.path.c_str(), 0, 0) == 0, "no owner");
  }
  CHECK(!source.results(cache.path.c_str()).empty(), "the folder is right again");
}

// Drafts of processes that have died go; one that is being written stays.
void check_drafts() {
  Folder sources, cache;
  const Source source(sources, 8);
  const std::string dead = cache.path + "/drover-dead.draft", alive = cache.path + "/drover-alive.draft";
  const std::string other = cache.path + "/other.draft";
  for (const std::string& path : {dead, alive, other}) write_file(path, Bytes(100));
  const int held = open(alive.c_str(), O_RDWR);
  CHECK(held >= 0 && flock(held, LOCK_EX | LOCK_NB) == 0, "no lock");
  CHECK(!source.results(cache.path.c_str()).empty(), "no results");
  CHECK(access(dead.c_str(), F_OK) != 0, "the dead draft is still there");
  CHECK(access(alive.c_str(), F_OK) == 0 && access(other.c_str(), F_OK) == 0, "too much is gone");
  close(held);
}

// The draft that somebody else writes is waited for, until that one ends or this load is cancelled.
void check_waiting() {
  Folder sources, cache;
  const Source source(sources, 9);
  const char* folder = cache.path.c_str();
  const Words right = source.results(folder);
  const std::string file = only_file(cache);
  const std::string draft = file.substr(0, file.size() - 8) + ".draft";
  unlink(file.c_str());
  write_file(draft, Bytes(10, 255));  // what a killed process has left
  const int held = open(draft.c_str(), O_RDWR);
  CHECK(held >= 0 && flock(held, LOCK_EX | LOCK_NB) == 0, "no lock");
  int32_t cancel = 0;
  drover_error error{};
  drover_program* program = nullptr;
  int code = DROVER_OK;
  std::thread waiting([&] { code = source.load_from(folder, &program, &error, 0, 0, &cancel); });
  std::this_thread::sleep_for(std::chrono::milliseconds(50));
  __atomic_store_n(&cancel, 1, __ATOMIC_RELAXED);
  waiting.join();
  CHECK(code == DROVER_ABORTED, "code %d", code);
  Words found;
  std::thread patient([&] { found = source.results(folder); });
  std::this_thread::sleep_for(std::chrono::milliseconds(50));
  CHECK(access(file.c_str(), F_OK) != 0, "written in spite of the lock");
  close(held);
  patient.join();
  CHECK(found == right, "other numbers");
  CHECK(only_file(cache) == file, "another file");
}

void check_cancel() {
  Folder sources, cache;
  const Source source(sources, 10);
  const int32_t cancel = 1;
  drover_program* program = nullptr;
  drover_error error{};
  CHECK(source.load_from(cache.path.c_str(), &program, &error, 0, 0, &cancel) == DROVER_ABORTED, "not aborted");
  CHECK(names_in(cache.path).empty(), "%zu files are left", names_in(cache.path).size());
  CHECK(!source.results(cache.path.c_str()).empty(), "no results");
  CHECK(source.load_from(cache.path.c_str(), &program, &error, 0, 0, &cancel) == DROVER_ABORTED, "mapped: not aborted");
}

// Many at the same time: one file, and the right numbers for all.
void check_many() {
  Folder sources, cache;
  const Source source(sources, 11);
  const Words right = source.results(nullptr);
  std::vector<Words> found(8);
  std::vector<std::thread> threads;
  for (Words& mine : found) {
    threads.emplace_back([&] { mine = source.results(cache.path.c_str(), &mine == &found[3] ? 1 : 0); });
  }
  for (std::thread& thread : threads) thread.join();
  for (const Words& each : found) CHECK(each == right, "other numbers");
  only_file(cache);
}

// A NaN scale is refused with a file as without, and leaves none.
void check_verify() {
  Folder sources, cache;
  Source source(sources, 12);
  Bytes bytes = source.everything.weights.bytes;
  const float nan = __builtin_nanf("");
  std::memcpy(bytes.data(), &nan, 4);
  write_file(source.path, bytes);
  drover_program* program = nullptr;
  drover_error error{};
  CHECK(source.load_from(cache.path.c_str(), &program, &error, 1) == DROVER_FORMAT, "not refused");
  CHECK(names_in(cache.path).empty(), "a file of refused weights");
  const bool loaded = source.load_from(cache.path.c_str(), &program, &error) == DROVER_OK;
  CHECK(loaded, "%s", error.message);
  if (loaded) drover_program_release(program);
  CHECK(source.load_from(cache.path.c_str(), &program, &error, 1) == DROVER_FORMAT, "mapped: not refused");
}

}  // namespace

int main() {
  setenv("DROVER_THREADS", "3", 1);
  check_same_numbers();
  check_memory();
  check_damage();
  check_folders();
  check_drafts();
  check_waiting();
  check_cancel();
  check_many();
  check_verify();
  return check_summary();
}
