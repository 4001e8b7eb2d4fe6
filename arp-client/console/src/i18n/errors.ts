//! What machines and relays refuse, in Chinese, by the code of the refusal. In English their own sentences are shown,
//! which say more; codes are those of docs/api.md, and of the relay.

export const zhErrors: Record<string, string> = {
  agent_failed: '智能体的进程没能启动。',
  agent_not_found: '机器上没有找到这个智能体，请先安装。',
  agent_too_old: '机器上的智能体版本太旧，请先升级。',
  already_sent: '这条消息已经发出，无法撤回。',
  approval_not_found: '没有这个待批准项。',
  approval_resolved: '已在别处处理。',
  bad_query: '请求参数有误。',
  bad_range: '请求的范围超出了文件。',
  bad_request: '请求有误。',
  body_too_large: '内容太大，机器不接受。',
  busy: '这台机器正忙，请稍后再试。',
  bypass_not_allowed: '机器的主人没有开放“不询问”模式。',
  cannot_resume: '这个会话无法继续：智能体没有留下可以接续的记录。',
  client_id_reused: '相同编号的消息内容不同，已拒绝。',
  edge_key_required: '这台机器需要密钥。',
  edge_key_wrong: '密钥不正确。',
  file_not_found: '没有这个文件或目录。',
  fs_disabled: '这台机器没有开放文件访问。',
  host_not_allowed: '这台机器不接受通过这个主机名的访问。',
  internal: '机器内部出错，详情见它的日志。',
  invalid_path: '路径无效。',
  is_a_directory: '这是一个目录。',
  json_required: '请求必须是 JSON。',
  local_service_down: '机器上的本地服务没有回应。',
  message_not_found: '没有这条消息。',
  method_not_allowed: '这个地址不支持该操作。',
  no_history: '这个智能体还没有历史。',
  not_a_directory: '这不是目录。',
  not_found: '机器上没有这个地址。',
  not_live: '这个会话不在运行，只在历史中。',
  offline: '这台机器没有连接到中继。',
  origin_not_allowed: '这台机器不允许来自本页面的操作。',
  other_edge: '这个地址现在由另一台机器应答，请先在会话列表中确认。',
  outside_root: '这个位置不在开放的目录之内。',
  permission_denied: '机器上的用户没有权限访问。',
  port_not_allowed: '这个端口没有开放。',
  project_path_not_found: '机器上没有这个目录。',
  queue_full: '排队的消息太多，请等一会儿再发。',
  session_changed: '会话已发生变化，请再试一次。',
  session_live: '会话正在运行，请先停止它。',
  session_not_found: '没有这个会话。',
  shutting_down: '机器上的 arpc 正在停止。',
  special_file: '这不是普通文件，无法显示。',
  token_required: '需要访问令牌。',
  too_many_sessions: '同时运行的会话太多，请先停止一个。',
  tunnel_timeout: '没能及时连上这台机器，请再试一次。',
  unknown_agent: '没有这个智能体。',
  unknown_token: '中继不认识这个访问令牌。',
  unsupported: '这个智能体不支持该操作。',
  upgrade_required: '这个地址只接受 WebSocket。',
  wrong_state: '会话当前的状态不允许这样做。',
  token_conflict: '请求同时指定了两台机器。',
  other_host: '这个主机名属于另一台机器。',
  too_many_guesses: '密钥输错的次数太多，请稍后再试。',
  no_answer: '机器没有给出应答。',
  bad_answer: '机器的应答无法理解。',
  too_many_unknown_tokens: '无效的访问令牌尝试过多，请稍后再试。',
  bad_frame: '消息格式有误。',
  session_in_use: '这个会话正在别处使用；可以另开分支继续。',
  io_error: '机器上有文件无法读取。',
  index_error: '机器上的历史索引出错。',
  disk_full: '机器的磁盘已满，请先腾出空间。',
  local_only: '这只能在那台机器上进行。',
  too_many_refusals: '访问令牌输错的次数太多，请稍后再试。',
  hidden: '这里放着 arpc 的密钥和访问令牌，不予显示。',
  service_worker_refused: '经由机器端口打开的页面不能注册 Service Worker。',
};

/** Why an agent cannot be used, in Chinese; what is not known stays as the edge words it. */
export function zhProblem(problem: string): string {
  const install = (text: string): string => text.replace(/^Install it with `([^`]+)`(?:, then run `([^`]+)`.*)?$/s, (_, how: string, then?: string) => `安装：${how}${then ? `，再运行 ${then}` : ''}。`);
  const missing = /^(.+?) was not found on this machine \((.*?)\)\. (.*)$/s.exec(problem);
  if (missing) return `这台机器上没有找到它。${install(missing[3] ?? '')}`;
  const old = /^(.+?) (\S+) at (\S+) is too old, (\S+) or newer is needed\. (.*)$/s.exec(problem);
  if (old) return `${old[2]} 版太旧，需要 ${old[4]} 或更新。${install(old[5] ?? '')}`;
  const silent = /^(.+?) at (.+?) does not answer `(.+?)`/s.exec(problem);
  if (silent) return `${silent[2]} 没有应答 ${silent[3]}。`;
  return problem;
}
