{{- define "arps.name" -}}
{{- printf "%s" .Release.Name | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{- define "arps.labels" -}}
app.kubernetes.io/name: arps
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end -}}

{{- define "arps.selector" -}}
app.kubernetes.io/name: arps
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "arps.secret" -}}
{{- if .Values.existingSecret -}}
{{ .Values.existingSecret }}
{{- else if .Values.joinKey -}}
{{ include "arps.name" . }}-join-key
{{- end -}}
{{- end -}}
